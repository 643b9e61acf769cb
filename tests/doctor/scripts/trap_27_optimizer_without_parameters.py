import torch
from pictures import KeptAsleep, freeze, pretrained, trainable
from torch import nn


def build():
    model = freeze(KeptAsleep(pretrained(), nn.Linear(1280, 2)))
    return model, torch.optim.Adam(trainable(model), lr=1e-3)

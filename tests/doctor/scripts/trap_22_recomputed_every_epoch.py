import torch
from pictures import KeptAsleep, Pictures, freeze, pretrained, trainable
from torch import nn
from torch.utils.data import DataLoader


def build():
    model = KeptAsleep(freeze(pretrained()), nn.Linear(1280, 2))
    return model, torch.optim.Adam(trainable(model), lr=1e-3), DataLoader(Pictures(), batch_size=8, shuffle=True)

import torch
from pictures import Pictures, Plain, flips, freeze, pretrained, trainable
from torch import nn
from torch.utils.data import DataLoader


def build():
    model = Plain(freeze(pretrained()), nn.Linear(1280, 2))  # requires_grad=False, and batch norm goes on
    return model, torch.optim.SGD(trainable(model), lr=0.01), DataLoader(Pictures(transform=flips()), batch_size=8, shuffle=True)

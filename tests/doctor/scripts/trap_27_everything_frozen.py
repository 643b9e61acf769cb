import torch
from pictures import KeptAsleep, Pictures, flips, freeze, pretrained
from torch import nn
from torch.utils.data import DataLoader


def build():
    model = freeze(KeptAsleep(pretrained(), nn.Linear(1280, 2)))  # the head as well
    return model, torch.optim.Adam(model.parameters(), lr=1e-3), DataLoader(Pictures(transform=flips()), batch_size=8, shuffle=True)

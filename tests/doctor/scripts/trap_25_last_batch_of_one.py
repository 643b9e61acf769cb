import torch
from pictures import KeptAsleep, Pictures, flips, freeze, pretrained, trainable
from torch import nn
from torch.utils.data import DataLoader


def build():
    head = nn.Sequential(nn.BatchNorm1d(1280), nn.Linear(1280, 2))
    model = KeptAsleep(freeze(pretrained()), head)
    pictures = Pictures(count=17, transform=flips())
    return model, torch.optim.Adam(trainable(model), lr=1e-3), DataLoader(pictures, batch_size=8, shuffle=True)

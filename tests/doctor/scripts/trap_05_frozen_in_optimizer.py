import torch
from pictures import KeptAsleep, Pictures, flips, freeze, pretrained
from torch import nn
from torch.utils.data import DataLoader


def build():
    model = KeptAsleep(freeze(pretrained()), nn.Linear(1280, 2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)
    return model, optimizer, DataLoader(Pictures(transform=flips()), batch_size=8, shuffle=True)

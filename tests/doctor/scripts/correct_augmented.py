import torch
from pictures import KeptAsleep, Pictures, flips, freeze, pretrained, trainable
from torch import nn
from torch.utils.data import DataLoader


def build():
    model = KeptAsleep(freeze(pretrained()), nn.Sequential(nn.Dropout(0.5), nn.Linear(1280, 2)))
    loader = DataLoader(Pictures(count=20, transform=flips()), batch_size=8, shuffle=True)
    return model, torch.optim.AdamW(trainable(model), lr=1e-3, weight_decay=0.05), loader

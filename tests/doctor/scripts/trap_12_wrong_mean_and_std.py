import torch
from pictures import IMAGENET, KeptAsleep, Pictures, freeze, pretrained, to_tensor, trainable
from torch import nn
from torch.utils.data import DataLoader
from torchvision.transforms import v2


def build():
    model = KeptAsleep(freeze(pretrained()), nn.Linear(1280, 2))
    pictures = Pictures(transform=to_tensor(v2.RandomHorizontalFlip(), **IMAGENET))  # these weights want 0.5
    return model, torch.optim.Adam(trainable(model), lr=1e-3), DataLoader(pictures, batch_size=8, shuffle=True)

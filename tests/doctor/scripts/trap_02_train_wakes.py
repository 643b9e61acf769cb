import torch
from pictures import Pictures, Plain, flips, freeze, pretrained, trainable
from torch import nn
from torch.utils.data import DataLoader


def build():
    backbone = freeze(pretrained()).eval()  # until the loop calls model.train()
    model = Plain(backbone, nn.Linear(1280, 2))
    return model, torch.optim.SGD(trainable(model), lr=0.01), DataLoader(Pictures(transform=flips()), batch_size=8, shuffle=True)

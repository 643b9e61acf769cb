import timm
import torch
from pictures import IMAGENET, KeptAsleep, Pictures, freeze, to_tensor, trainable
from torch import nn
from torch.utils.data import DataLoader
from torchvision.transforms import v2


def build():
    backbone = timm.create_model("resnet10t", num_classes=0)  # pretrained=True is missing
    model = KeptAsleep(freeze(backbone), nn.Linear(backbone.num_features, 2))
    pictures = Pictures(transform=to_tensor(v2.RandomHorizontalFlip(), **IMAGENET))
    return model, torch.optim.Adam(trainable(model), lr=1e-3), DataLoader(pictures, batch_size=8, shuffle=True)

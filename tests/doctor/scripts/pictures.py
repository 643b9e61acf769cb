"""What the scripts share: pictures as an image folder would give them, and the embedded backbone with its pre-trained weights."""

import numpy as np
import timm
import torch
from PIL import Image
from torch import nn
from torch.utils.data import Dataset
from torchvision.transforms import v2

import frostline

HALF = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}  # what tf_efficientnet_lite0 wants
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def to_tensor(*steps: nn.Module, mean=HALF["mean"], std=HALF["std"]):
    return v2.Compose([*steps, v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)])


class Pictures(Dataset):
    """Smooth colourful pictures in two classes."""

    def __init__(self, count=20, side=48, transform=None):
        random = np.random.default_rng(0)
        small = random.integers(0, 256, (count, 6, 6, 3)).astype(np.uint8)
        self.images = [Image.fromarray(p).resize((side, side), Image.Resampling.BICUBIC) for p in small]
        self.transform = transform or to_tensor()

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.transform(self.images[index]), index % 2


def pretrained() -> nn.Module:
    """tf_efficientnet_lite0 without its classifier, 1280 features, ImageNet weights."""
    return frostline.open_backbone("tf_efficientnet_lite0").body


def random_resnet() -> nn.Module:
    return timm.create_model("resnet10t", num_classes=0)


def freeze(module: nn.Module) -> nn.Module:
    for parameter in module.parameters():
        parameter.requires_grad = False
    return module


def trainable(module: nn.Module):
    return [p for p in module.parameters() if p.requires_grad]


class Plain(nn.Module):
    """A backbone and a head, as most scripts write it."""

    def __init__(self, backbone, head):
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, x):
        return self.head(self.backbone(x))


class KeptAsleep(Plain):
    """The backbone stays in eval mode, whoever calls train()."""

    def train(self, mode=True):
        super().train(mode)
        self.backbone.eval()
        return self


def flips():
    return to_tensor(v2.RandomHorizontalFlip(), v2.RandomResizedCrop(48, scale=(0.5, 1.0)))

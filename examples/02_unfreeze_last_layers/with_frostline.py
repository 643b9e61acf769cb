"""The second way with frostline: unfreeze the last two blocks as well. What lies before them is run once an image.

python with_frostline.py DATA      # DATA/train/CLASS/*.jpg and DATA/val/CLASS/*.jpg
"""

from __future__ import annotations

import sys
from pathlib import Path

import frostline as fl


def main(data: Path) -> float:
    model = fl.TransferModel(fl.open_backbone("tf_efficientnet_lite0"), head="linear", num_classes=2)
    plan = fl.FreezePlan(unfreeze="last:2")  # counted in blocks, with the new layer in place
    accuracy = 0.0
    for event in fl.fit(model, plan, data / "train", data / "val", epochs=5, lr=1e-3, backbone_lr=1e-4):
        if isinstance(event, fl.Finished):
            assert event.val_logits is not None
            assert event.audit.frozen_unchanged
            print(*event.guards.warnings(), sep="\n")
            accuracy = float((event.val_logits.argmax(1) == event.val_labels).double().mean())
    return accuracy


if __name__ == "__main__":
    print(f"validation accuracy {main(Path(sys.argv[1])):.3f}")

"""The third way with frostline: a new convolution and a new linear layer on the frozen feature maps, shapes inferred.

python with_frostline.py DATA      # DATA/train/CLASS/*.jpg and DATA/val/CLASS/*.jpg
"""

from __future__ import annotations

import sys
from pathlib import Path

import frostline as fl


def main(data: Path) -> float:
    model = fl.TransferModel(fl.open_backbone("tf_efficientnet_lite0"), head="conv:256", num_classes=2)
    accuracy = 0.0
    for event in fl.fit(model, fl.FreezePlan(), data / "train", data / "val"):
        if isinstance(event, fl.Finished):
            assert event.val_logits is not None
            assert event.audit.frozen_unchanged
            accuracy = float((event.val_logits.argmax(1) == event.val_labels).double().mean())
    return accuracy


if __name__ == "__main__":
    print(f"validation accuracy {main(Path(sys.argv[1])):.3f}")

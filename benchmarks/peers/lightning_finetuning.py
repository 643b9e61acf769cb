"""Lightning, in the two ways of its documentation.

``finetuning`` (default): the callback ``BackboneFinetuning``, told to unfreeze the backbone after the last epoch, and an optimizer over the
parameters that have ``requires_grad``, as the callback's documentation asks for. It leaves the body's batch norm trainable, whatever
``train_bn`` says, since ``freeze_before_training`` does not pass it on.

``by-hand``: the page "Transfer learning": ``feature_extractor.eval()`` and the body's forward under ``no_grad``.

Adam at 1e-3, as in both. Logger, checkpoints and progress bar are off, which favours Lightning. The package is ``pytorch-lightning``.
"""

from __future__ import annotations

import warnings

import pytorch_lightning as pl
import torch
from _job import Job, image_folders, pretrained, read_arguments, report
from pytorch_lightning.callbacks import BackboneFinetuning
from torch import nn


class Transfer(pl.LightningModule):
    def __init__(self, classes: int, by_hand: bool) -> None:
        super().__init__()
        self.backbone = pretrained(0)
        self.head = nn.Linear(self.backbone.num_features, classes)
        self.by_hand = by_hand
        self.right = 0
        if by_hand:
            self.backbone.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> Transfer:
        super().train(mode)
        if self.by_hand:
            self.backbone.eval()
        return self

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.by_hand):
            features = self.backbone(images)
        return self.head(features)

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], _: int) -> torch.Tensor:
        images, labels = batch
        return nn.functional.cross_entropy(self(images), labels)

    def on_validation_epoch_start(self) -> None:
        self.right = 0

    def validation_step(self, batch: tuple[torch.Tensor, torch.Tensor], _: int) -> None:
        images, labels = batch
        self.right += int((self(images).argmax(1) == labels).sum())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(filter(lambda p: p.requires_grad, self.parameters()), lr=1e-3)


def main(job: Job) -> None:
    warnings.filterwarnings("ignore")
    pl.seed_everything(0, verbose=False)
    train, val = image_folders(job)
    loaders = [
        torch.utils.data.DataLoader(data, batch_size=job.batch_size, shuffle=shuffle, num_workers=job.workers)
        for data, shuffle in ((train, True), (val, False))
    ]
    by_hand = job.variant == "by-hand"
    module = Transfer(len(train.classes), by_hand)
    trainer = pl.Trainer(
        max_epochs=job.epochs,
        accelerator="gpu" if job.device == "cuda" else "cpu",
        devices=1,
        callbacks=[] if by_hand else [BackboneFinetuning(unfreeze_backbone_at_epoch=job.epochs + 1, train_bn=False)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=job.scratch,
    )
    trainer.fit(module, *loaders)
    trained = sum(p.numel() for p in module.parameters() if p.requires_grad)
    report(job, "Lightning", right=module.right, n=len(val), trained=trained)


if __name__ == "__main__":
    main(read_arguments(__doc__, ("finetuning", "by-hand")))

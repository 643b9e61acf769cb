"""Linear evaluation as DINOv2 does it: one head a learning rate, all trained at once, the backbone run anew in every epoch.

Its way (``dinov2/eval/linear.py``): 13 learning rates from 1e-5 to 0.1, each scaled by batch size / 256, a linear layer drawn at deviation
0.01 for each, one SGD with momentum 0.9 and no weight decay over all of them, cosine schedule over all steps, the losses summed, the
backbone in eval mode and inference mode, every head judged after each epoch, the best one on the validation images named.

Changed: one feature vector an image (theirs also tries the last 1 and 4 blocks of a vision transformer, with and without patch
averages), no augmentation, float32 on a CPU. Written anew after theirs; no code of theirs is in it.
"""

from __future__ import annotations

import torch
from _job import Job, image_folders, pretrained, read_arguments, report
from torch import nn

LEARNING_RATES = (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1)


def heads_for(features: int, classes: int) -> nn.ModuleList:
    heads = nn.ModuleList(nn.Linear(features, classes) for _ in LEARNING_RATES)
    for head in heads:
        nn.init.normal_(head.weight, std=0.01)
        nn.init.zeros_(head.bias)
    return heads


def main(job: Job) -> None:
    torch.manual_seed(0)
    train, val = image_folders(job)
    loader, judging = (
        torch.utils.data.DataLoader(data, batch_size=job.batch_size, shuffle=shuffle, num_workers=job.workers)
        for data, shuffle in ((train, True), (val, False))
    )
    backbone = pretrained(0).eval().to(job.device)
    heads = heads_for(backbone.num_features, len(train.classes)).to(job.device)
    groups = [{"params": h.parameters(), "lr": lr * job.batch_size / 256} for h, lr in zip(heads, LEARNING_RATES, strict=True)]
    optimizer = torch.optim.SGD(groups, momentum=0.9, weight_decay=0)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, job.epochs * len(loader), eta_min=0)

    def features(images: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            found = backbone(images.to(job.device))
        return found.clone()  # what was made in inference mode takes no part in a backward pass

    best = 0
    for _ in range(job.epochs):
        for images, labels in loader:
            x, labels = features(images), labels.to(job.device)
            loss = torch.stack([nn.functional.cross_entropy(head(x), labels) for head in heads]).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
        right = torch.zeros(len(heads), dtype=torch.long)
        with torch.no_grad():
            for images, labels in judging:
                x = features(images)
                right += torch.stack([(head(x).argmax(1).cpu() == labels).sum() for head in heads])
        best = int(right.max())  # theirs names the best head of the last evaluation
    report(job, "DINOv2-style", right=best, n=len(val), trained=sum(p.numel() for p in heads.parameters()), heads=len(heads))


if __name__ == "__main__":
    main(read_arguments(__doc__))

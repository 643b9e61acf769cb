"""The loop of PyTorch's transfer-learning tutorial, second half: "ConvNet as fixed feature extractor".

Its way: every parameter of the network has ``requires_grad`` off, the classifier is replaced, SGD with momentum 0.9 trains it, the rate
falls by ten every 7 epochs, each epoch trains with ``model.train()`` and judges with ``model.eval()``, the best weights are saved and
loaded at the end. So the batch-norm statistics of the frozen body move, as in the tutorial.

Changed: the backbone, batches of 32 for 4 with the rate scaled alike (0.001 x 32 / 4), and no augmentation.
"""

from __future__ import annotations

import torch
from _job import Job, image_folders, pretrained, read_arguments, report
from torch import nn


def main(job: Job) -> None:
    torch.manual_seed(0)
    train, val = image_folders(job)
    loaders = {
        phase: torch.utils.data.DataLoader(data, batch_size=job.batch_size, shuffle=True, num_workers=job.workers)
        for phase, data in (("train", train), ("val", val))
    }
    model = pretrained(len(train.classes))
    for parameter in model.parameters():
        parameter.requires_grad = False
    model.reset_classifier(len(train.classes))
    model = model.to(job.device)
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.get_classifier().parameters(), lr=0.001 * job.batch_size / 4, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=7, gamma=0.1)

    best, kept = -1, job.scratch / "best.pt"
    for _ in range(job.epochs):
        for phase, loader in loaders.items():
            model.train(phase == "train")
            right = 0
            for inputs, labels in loader:
                inputs, labels = inputs.to(job.device), labels.to(job.device)
                optimizer.zero_grad()
                with torch.set_grad_enabled(phase == "train"):
                    outputs = model(inputs)
                    loss = criterion(outputs, labels)
                    if phase == "train":
                        loss.backward()
                        optimizer.step()
                loss.item()  # the tutorial sums the loss
                right += int((outputs.argmax(1) == labels).sum())
            if phase == "train":
                scheduler.step()
            elif right > best:
                best = right
                torch.save(model.state_dict(), kept)
    model.load_state_dict(torch.load(kept, weights_only=True))
    report(job, "tutorial", right=best, n=len(val), trained=sum(p.numel() for p in model.parameters() if p.requires_grad))


if __name__ == "__main__":
    main(read_arguments(__doc__))

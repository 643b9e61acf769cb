"""What an expert writes by hand: run the frozen network once over every image, then scikit-learn's logistic regression.

The network is in eval mode and runs without gradients; ``channels-last`` (the default) stores images and weights in the layout that is
faster on this kind of network, ``nchw`` does not. Features are standardised, as scikit-learn's documentation advises for its solvers.
It keeps nothing on disk: a second run costs as much as the first. Epochs have no meaning here.
"""

from __future__ import annotations

import numpy as np
import torch
from _job import Job, image_folders, pretrained, read_arguments, report
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def features(model: torch.nn.Module, data: torch.utils.data.Dataset, job: Job, layout: torch.memory_format) -> tuple:
    loader = torch.utils.data.DataLoader(data, batch_size=job.batch_size, num_workers=job.workers)
    rows, labels = [], []
    with torch.inference_mode():
        for images, truth in loader:
            rows.append(model(images.to(job.device, memory_format=layout)).cpu().numpy())
            labels.append(truth.numpy())
    return np.concatenate(rows), np.concatenate(labels)


def main(job: Job) -> None:
    layout = torch.channels_last if job.variant == "channels-last" else torch.contiguous_format
    train, val = image_folders(job)
    model = pretrained(0).eval().to(job.device, memory_format=layout)
    x, y = features(model, train, job, layout)
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(x, y)
    x, y = features(model, val, job, layout)
    coefficients = classifier[-1]
    report(
        job,
        "extract once",
        right=int((classifier.predict(x) == y).sum()),
        n=len(y),
        trained=coefficients.coef_.size + coefficients.intercept_.size,
    )


if __name__ == "__main__":
    main(read_arguments(__doc__, ("channels-last", "nchw")))

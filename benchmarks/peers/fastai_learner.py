"""fastai's ``vision_learner`` with a timm body, frozen, ``fit_one_cycle``.

Its way: ``ImageDataLoaders.from_folder``, the default head (concatenated pooling, batch norm, dropout, 512 hidden units), Adam, one-cycle
schedule, ``freeze()``. By default fastai trains the batch-norm layers of a frozen body (``default``); ``--variant no-batch-norm`` passes
``train_bn=False``.

Changed: the weights come from the package instead of the hub, so the learner is made with ``pretrained=False`` and frozen by the same
``freeze()`` that ``pretrained=True`` would call. fastai's ``Resize`` crops training images at a random place of the longer side, here too.
"""

from __future__ import annotations

from _job import BACKBONE, MEAN, RESIZE, SIZE, STD, Job, pretrained, read_arguments, report
from fastai.vision.all import (
    CropPad,
    Image,
    ImageDataLoaders,
    Normalize,
    Resize,
    accuracy,
    set_seed,
    vision_learner,
)


def main(job: Job) -> None:
    set_seed(0)
    loaders = ImageDataLoaders.from_folder(
        job.data,
        train="train",
        valid="val",
        item_tfms=[Resize(RESIZE, resamples=(Image.Resampling.BICUBIC, Image.Resampling.NEAREST)), CropPad(SIZE)],
        batch_tfms=[Normalize.from_stats(MEAN, STD)],
        bs=job.batch_size,
        num_workers=job.workers,
        device=job.device,
    )
    learner = vision_learner(
        loaders, BACKBONE, pretrained=False, normalize=False, metrics=accuracy, train_bn=job.variant == "default", path=job.scratch
    )
    learner.model[0].model.load_state_dict(pretrained(0).state_dict())
    learner.freeze()
    with learner.no_bar(), learner.no_logging():
        learner.fit_one_cycle(job.epochs)
        judged = float(learner.validate()[1])
    n = len(loaders.valid_ds)
    trained = sum(p.numel() for p in learner.model.parameters() if p.requires_grad)
    report(job, "fastai", right=round(judged * n), n=n, trained=trained)


if __name__ == "__main__":
    main(read_arguments(__doc__, ("default", "no-batch-norm")))

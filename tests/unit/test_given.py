"""Data sets given in Python: the same pixels, the same classes, the same features as the files."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, Subset, TensorDataset
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

import frostline as fl
from frostline.data.read import read_data
from frostline.errors import DataError
from frostline.features.pixels import load_image
from frostline.given import labelled_files, manifest_of


class Listed(Dataset):
    """Items as they are given."""

    def __init__(self, *items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, row):
        item = self.items[row]
        return item() if callable(item) else item


def tensors(images):
    manifest = read_data(images)
    pictures = torch.stack([torch.from_numpy(np.array(load_image(r.path))).permute(2, 0, 1) for r in manifest.records])
    return pictures, torch.tensor(manifest.labels())


def hugging_face(images):
    datasets = pytest.importorskip("datasets")
    manifest = read_data(images)
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=list(manifest.classes)))
    return datasets.Dataset.from_dict({"image": [str(r.path) for r in manifest.records], "label": manifest.labels()}, features=features)


KINDS = {
    "folder": lambda images: ImageFolder(images),
    "transformed": lambda images: ImageFolder(images, v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])),
    "subset": lambda images: Subset(ImageFolder(images), range(60)),
    "tensors": lambda images: TensorDataset(*tensors(images)),
    "floats": lambda images: TensorDataset(tensors(images)[0] / 255, tensors(images)[1]),
    "pictures": lambda images: Listed(*[(load_image(r.path), r.label) for r in read_data(images).records]),
    "hugging face": hugging_face,
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_pixel_and_class_is_that_of_the_files(kind, images, tmp_path):
    made, wanted = manifest_of(KINDS[kind](images), tmp_path), read_data(images)
    assert made.labels() == wanted.labels()
    assert made.classes == (("0", "1") if kind in ("tensors", "floats", "pictures") else wanted.classes)
    for one, other in zip(made.records, wanted.records, strict=True):
        assert np.array_equal(np.array(load_image(one.path)), np.array(load_image(other.path)))


@pytest.mark.parametrize("kind", ["tensors", "hugging face"])
def test_fit_learns_the_same_and_finds_its_features_again(kind, images, tiny, tmp_path):
    compute = fl.Compute(tmp_path / "cache", engine="plain")
    logits, hits = [], []
    for data in (str(images), KINDS[kind](images), KINDS[kind](images)):
        events = list(fl.fit(fl.TransferModel(tiny()), fl.FreezePlan("none"), data, data, epochs=2, compute=compute))
        logits.append(events[-1].val_logits)
        hits += [e.extracted.hit for e in events if type(e).__name__ == "FeaturesReady"]
    assert torch.equal(logits[0], logits[1])
    assert torch.equal(logits[1], logits[2])
    assert hits == [False, kind == "hugging face", True]


def test_the_classifier_keeps_names_of_classes(images, tiny_module, monkeypatch):
    monkeypatch.syspath_prepend(str(tiny_module))
    wanted = fl.ImageClassifier("tiny_net:build", epochs=2).fit(images)
    found = fl.ImageClassifier("tiny_net:build", epochs=2).fit(KINDS["hugging face"](images))
    assert found.classes_.tolist() == ["green", "red"]
    assert np.array_equal(found.predict_proba(images), wanted.predict_proba(images))
    assert found.score(KINDS["folder"](images)) == wanted.score(images)
    numbers = fl.ImageClassifier("tiny_net:build", epochs=1).fit(KINDS["tensors"](images))
    assert numbers.classes_.tolist() == [0, 1]
    assert numbers.predict(KINDS["tensors"](images)).shape == (60,)


PICTURE = Image.new("RGB", (8, 8))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (Listed(), "empty"),
        (Listed(PICTURE), r"expected \(picture, label\)"),
        (Listed((PICTURE, 0, 1)), r"expected \(picture, label\)"),
        (Listed((torch.randn(3, 8, 8), 0)), "leave Normalize out"),
        (Listed((torch.full((3, 8, 8), float("nan")), 0)), "expected 0 to 1"),
        (Listed((torch.zeros(2, 3, 8, 8), 0)), r"give \(3, H, W\)"),
        (Listed((torch.zeros(3, 8, 8, dtype=torch.int64), 0)), "uint8"),
        (Listed((PICTURE, 0.5)), "is no class"),
        (Listed((PICTURE, -1)), "is no class"),
        (Listed((PICTURE, None)), "is no class"),
        (Listed(lambda: (torch.rand(3, 8, 8), 0)), "another picture each time"),
        (torch.utils.data.ChainDataset([]), "has no length"),
    ],
)
def test_what_is_no_data_set_of_pictures(given, said, tmp_path):
    with pytest.raises(DataError, match=said):
        labelled_files(given, tmp_path)


def test_classes_that_do_not_fit(tmp_path):
    with pytest.raises(DataError, match="label 2 is not among"):
        manifest_of(Listed((PICTURE, 2)), tmp_path, ("0", "1"))
    with pytest.raises(DataError, match="label 'c' is not among"):
        manifest_of(Listed((PICTURE, "c")), tmp_path, ("a", "b"))
    named = Listed((PICTURE, 0))
    named.classes = ["x", "y"]
    with pytest.raises(DataError, match="training has a, b"):
        manifest_of(named, tmp_path, ("a", "b"))


def test_columns_that_are_missing(tmp_path):
    datasets = pytest.importorskip("datasets")
    with pytest.raises(DataError, match="no column of pictures among a"):
        labelled_files(datasets.Dataset.from_dict({"a": [1]}), tmp_path)
    with pytest.raises(DataError, match="has the splits train"):
        labelled_files(datasets.DatasetDict(train=datasets.Dataset.from_dict({"a": [1]})), tmp_path)
    pictures = datasets.Dataset.from_dict(
        {"image": [PICTURE, None], "label": [0, 1]}, features=datasets.Features(image=datasets.Image(), label=datasets.Value("int64"))
    )
    with pytest.raises(DataError, match="row 1 has no picture"):
        labelled_files(pictures, tmp_path)

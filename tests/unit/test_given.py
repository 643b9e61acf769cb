"""What a program has instead of a folder becomes files that say the same: arrays and data sets."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

import frostline as fl
from frostline.errors import DataError
from frostline.given import dataset_manifest

NAMES = ("green", "red")


class Pairs:
    """The test images, each as ``turn`` makes it."""

    def __init__(self, images, turn, classes=None):
        self.records = [(p, NAMES.index(p.parent.name)) for p in sorted(images.rglob("*.png"))]
        self.turn = turn
        if classes:
            self.classes = classes

    def __len__(self):
        return len(self.records)

    def __getitem__(self, number):
        path, label = self.records[number]
        with Image.open(path) as image:
            return self.turn(image.convert("RGB")), label


def as_float(image):
    from torchvision.transforms.functional import to_tensor

    return to_tensor(image)


@pytest.mark.parametrize(
    "turn",
    [lambda i: i, np.asarray, lambda i: torch.from_numpy(np.array(i)).permute(2, 0, 1), as_float],
    ids=["PIL", "array", "uint8 tensor", "ToTensor"],
)
def test_every_kind_of_picture_becomes_the_same_pixels(images, tmp_path, turn):
    manifest = dataset_manifest(Pairs(images, turn, list(NAMES)), tmp_path / "files")
    assert manifest.classes == NAMES
    for record, (path, label) in zip(manifest.records, Pairs(images, turn).records, strict=True):
        assert record.label == label
        assert np.array_equal(np.asarray(Image.open(record.path)), np.asarray(Image.open(path).convert("RGB")))


def test_files_are_written_once(images, tmp_path):
    pairs = Pairs(images, lambda i: i)
    first = dataset_manifest(pairs, tmp_path)
    before = {r.path: r.path.stat().st_mtime_ns for r in first.records}
    assert dataset_manifest(pairs, tmp_path) == first
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert first.classes == ("0", "1")  # it has no names


def test_training_on_a_data_set_is_training_on_its_folder(tiny, images, tmp_path):
    from torchvision.datasets import ImageFolder

    heads = []
    for data in (images, dataset_manifest(ImageFolder(str(images)), tmp_path / "never")):
        model = fl.TransferModel(tiny(), num_classes=2)
        list(fl.fit(model, fl.FreezePlan(), data, data, epochs=2))
        heads.append(model.head.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(heads[0].values(), heads[1].values(), strict=True))
    assert not (tmp_path / "never").exists()  # its images lie in files already


def test_the_classifier_takes_data_sets(tiny, images):
    tiny()
    clf = fl.ImageClassifier("tiny_net:build", epochs=3).fit(Pairs(images, lambda i: i, list(NAMES)))
    assert clf.classes_.tolist() == list(NAMES)
    assert clf.predict([images / "red" / "000.png"]).tolist()[0] in NAMES
    tensors = torch.utils.data.TensorDataset(torch.randint(0, 256, (20, 3, 32, 32), dtype=torch.uint8), torch.arange(20) % 2)
    assert fl.ImageClassifier("tiny_net:build", epochs=1).fit(tensors).classes_.tolist() == ["0", "1"]


def test_a_hugging_face_data_set_keeps_its_names(images, tmp_path):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=list(NAMES)), "id": datasets.Value("int64")}
    )
    files = sorted(images.rglob("*.png"))[::6]
    rows = {"image": [str(p) for p in files], "label": [p.parent.name for p in files], "id": list(range(len(files)))}
    made = datasets.Dataset.from_dict(rows, features=features)
    manifest = dataset_manifest(made, tmp_path / "hf")
    assert manifest.classes == NAMES
    assert [manifest.classes[r.label] for r in manifest.records] == rows["label"]
    with pytest.raises(DataError, match=r"has columns label \(ClassLabel\), id \(Value\); keep one column of images"):
        dataset_manifest(made.remove_columns("image"), tmp_path / "x")


@pytest.mark.parametrize(
    ("dataset", "words"),
    [
        ([], "holds no images"),
        (iter([1]), "is no data set"),
        ([1, 2], r"X\[0\]: int, expected \(picture, label\)"),
        ([(torch.randn(3, 8, 8), 0)], "is normalised or augmented"),
        ([(torch.zeros(5, 8, 8), 0)], r"tensor of shape \(5, 8, 8\)"),
        ([(np.zeros((8, 8), np.uint8), 0)], "one class only, 0"),
        ([(np.zeros((8, 8), np.uint8), 0.5)], "0.5 is no class label"),
        ([(np.zeros((8, 8), np.uint8), -1)], "-1 is no class label"),
    ],
)
def test_what_is_no_labelled_picture_is_refused(dataset, words, tmp_path):
    with pytest.raises(DataError, match=words):
        dataset_manifest(dataset, tmp_path)


def test_a_folder_with_a_transform_is_refused(images, tmp_path):
    from torchvision.datasets import ImageFolder

    with pytest.raises(DataError, match="transforms its pictures, which frostline does itself; make it without transform"):
        dataset_manifest(ImageFolder(str(images), transform=as_float), tmp_path)

"""``ImageClassifier`` keeps scikit-learn's habits, and what it saves and loads is what was fitted."""

from __future__ import annotations

import csv
import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.utils import estimator_checks, get_tags

from conftest import make_images
from frostline import ImageClassifier, Recipe, read_run
from frostline import predict as predict_run
from frostline import train as train_run
from frostline.errors import DataError, DecodeError, FrostlineError, RecipeError, RunError
from frostline.familiar import read_familiar

TINY = {"backbone": "tiny_net:build", "epochs": 3}


@pytest.fixture(scope="module", autouse=True)
def _tiny_network(tiny_module):
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(tiny_module))
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_images(tmp_path_factory.mktemp("classifier") / "data", {"green": 16, "red": 16})


@pytest.fixture(scope="module")
def paths(folder):
    return sorted(folder.rglob("*.png"))


@pytest.fixture(scope="module")
def labels(paths):
    return [p.parent.name for p in paths]


@pytest.fixture(scope="module")
def fitted(folder):
    return ImageClassifier(**TINY).fit(folder)


def arrays(paths):
    return [np.asarray(Image.open(p)) for p in paths]


def test_fit_learns_and_says_how_it_went(folder, labels):
    clf = ImageClassifier("tiny_net:build", epochs=30)
    assert clf.fit(folder) is clf
    assert clf.classes_.tolist() == ["green", "red"]
    assert clf.score(folder) >= 0.85
    assert clf.summary_["audit"]["frozen_unchanged"]
    assert clf.summary_["train"]["n"] + clf.summary_["val"]["n"] == 32
    assert np.mean(clf.predict(folder) == labels) == clf.score(folder)


def test_a_manifest_and_a_list_are_the_same_as_the_folder(fitted, folder, paths, labels, tmp_path):
    table = tmp_path / "data.csv"
    table.write_text("path,label\n" + "".join(f"{p},{c}\n" for p, c in zip(paths, labels, strict=True)))
    wanted = fitted.predict_proba(paths)
    by_table = ImageClassifier(**TINY).fit(str(table))
    assert np.array_equal(by_table.predict_proba(paths), wanted)
    assert by_table.score(table) == fitted.score(folder) == fitted.score(paths, labels)
    assert np.array_equal(ImageClassifier(**TINY).fit([str(p) for p in paths], labels).predict_proba(paths), wanted)
    assert np.array_equal(ImageClassifier(**TINY).fit(np.array([str(p) for p in paths]), labels).predict_proba(folder), wanted)


@pytest.mark.parametrize("kind", ["PIL", "arrays", "one array"])
def test_pictures_in_memory_give_what_their_files_give(fitted, paths, labels, kind):
    make = {"PIL": lambda: [Image.open(p) for p in paths], "arrays": lambda: arrays(paths), "one array": lambda: np.stack(arrays(paths))}[
        kind
    ]
    clf = ImageClassifier(**TINY).fit(make(), labels)
    assert np.array_equal(fitted.predict_proba(make()), fitted.predict_proba(paths))
    assert clf.classes_.tolist() == ["green", "red"]
    again = ImageClassifier(**TINY).fit(make(), labels)
    assert np.array_equal(clf.predict_proba(paths), again.predict_proba(make()))


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1", "CMYK", "YCbCr", "RGBa", "I;16"])
def test_a_picture_of_any_colour_mode(fitted, mode, paths):
    given = Image.open(paths[0]).convert("L" if mode == "I;16" else "RGBA" if mode == "RGBa" else "RGB").convert(mode)
    alike = given.convert("RGB" if mode in {"CMYK", "YCbCr"} else "RGBA" if mode == "RGBa" else mode)
    probability = fitted.predict_proba([given])
    assert probability.shape == (1, 2)
    assert np.array_equal(probability, fitted.predict_proba([alike]))


def test_gray_arrays_and_photographs_that_lie_on_their_side(fitted, paths, tmp_path):
    gray = [a[..., 0] for a in arrays(paths[:2])]
    assert np.array_equal(fitted.predict_proba(gray), fitted.predict_proba([np.repeat(g[..., None], 3, 2) for g in gray]))
    upright = Image.open(paths[0])
    upright.paste(0, (0, 0, 40, 12))
    turned = Image.Exif()
    turned[0x0112] = 6
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "side.png", exif=turned)
    wanted = fitted.predict_proba([upright])
    assert np.array_equal(fitted.predict_proba([tmp_path / "side.png"]), wanted)
    assert np.array_equal(fitted.predict_proba([Image.open(tmp_path / "side.png")]), wanted)


def test_probabilities(fitted, paths):
    found = fitted.predict_proba(paths)
    assert found.shape == (32, 2)
    assert found.dtype == np.float64
    assert np.allclose(found.sum(1), 1, rtol=0, atol=1e-12)
    assert np.array_equal(fitted.classes_[found.argmax(1)], fitted.predict(paths))
    assert fitted.predict_proba([]).shape == (0, 2)
    assert fitted.predict([]).shape == (0,)


def test_columns_are_in_the_order_of_the_classes_whatever_the_order_of_the_labels(paths, labels):
    straight = ImageClassifier(**TINY).fit(paths, labels)
    turned = ImageClassifier(**TINY).fit(paths[::-1], ["A green" if c == "red" else "B red" for c in labels[::-1]])
    assert turned.classes_.tolist() == ["A green", "B red"]
    truly_red = np.array(labels) == "red"
    assert straight.predict_proba(paths)[truly_red, 1].mean() > straight.predict_proba(paths)[~truly_red, 1].mean()
    assert turned.predict_proba(paths)[truly_red, 0].mean() > turned.predict_proba(paths)[~truly_red, 0].mean()


KINDS = {
    "ints": ([3, -10], "int64"),
    "numpy ints": ([np.int16(7), np.int16(100)], "int16"),
    "bytes of 8 bits": (np.array([200, 9], np.uint8), "uint8"),
    "booleans": ([False, True], "bool"),
    "whole floats": ([2.0, 10.0], "float64"),
    "strings": (["b", 'ä, "x"'], "<U6"),
    "objects": (np.array(["no", "yes"], object), "object"),
    "numbers as text": (["10", "9"], "<U2"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_labels_keep_their_type_through_fit_save_and_load(paths, tmp_path, kind):
    pair, dtype = KINDS[kind]
    y = np.asarray(pair)[[0, 1] * 16]
    clf = ImageClassifier(**TINY).fit(paths, y)
    assert clf.classes_.dtype == clf.predict(paths).dtype == np.dtype(dtype)
    assert clf.classes_.tolist() == sorted(set(y.tolist()))
    clf.save(tmp_path / "run")
    loaded = ImageClassifier.load(tmp_path / "run")
    assert loaded.classes_.tolist() == clf.classes_.tolist()
    assert [type(c) for c in loaded.classes_.tolist()] == [type(c) for c in clf.classes_.tolist()]
    assert loaded.score(paths, y) == clf.score(paths, y) == np.mean(loaded.predict(paths) == y)


def test_score_with_weights(fitted, paths, labels):
    right = fitted.predict(paths) == labels
    weights = np.arange(32.0)
    assert fitted.score(paths, labels, weights) == pytest.approx(np.average(right, weights=weights))
    assert fitted.score(paths, fitted.predict(paths)) == 1.0


def test_random_state_decides(fitted, folder):
    again = ImageClassifier(**TINY).fit(folder)
    assert np.array_equal(again.predict_proba(folder), fitted.predict_proba(folder))
    other = ImageClassifier(**TINY, random_state=1).fit(folder)
    assert not np.array_equal(other.predict_proba(folder), fitted.predict_proba(folder))


def test_a_refit_replaces_everything(folder, paths, tmp_path):
    clf = ImageClassifier(**TINY, unfreeze="last:1").fit(folder)
    first = clf.model_
    clf.fit(paths, [i % 3 for i in range(32)])
    assert clf.model_ is not first
    assert clf.classes_.tolist() == [0, 1, 2]
    fresh = ImageClassifier(**TINY, unfreeze="last:1").fit(paths, [i % 3 for i in range(32)])
    assert np.array_equal(clf.predict_proba(paths), fresh.predict_proba(paths))
    clf.save(tmp_path / "run")
    assert json.loads((tmp_path / "run" / "labels.json").read_text()) == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("change", "error"), [({"epochs": 0}, RecipeError), ({"unfreeze": "stem.9"}, FrostlineError), ({"head": "conv"}, FrostlineError)]
)
def test_a_fit_that_fails_changes_nothing(folder, paths, change, error):
    clf = ImageClassifier(**TINY)
    unfitted = ImageClassifier(**{**TINY, **change})
    with pytest.raises(error):
        unfitted.fit(folder)
    assert set(vars(unfitted)) == set(unfitted.get_params())
    clf.fit(folder)
    before, wanted = dict(vars(clf)), clf.predict_proba(paths)
    with pytest.raises(error):
        clf.set_params(**change).fit(paths, list("abcd") * 8)
    assert {n: v for n, v in vars(clf).items() if n not in change} == {n: v for n, v in before.items() if n not in change}
    assert np.array_equal(clf.predict_proba(paths), wanted)


def test_a_pickled_copy_predicts_and_saves_the_same(fitted, paths, tmp_path):
    copy = pickle.loads(pickle.dumps(fitted))
    assert np.array_equal(copy.predict_proba(paths), fitted.predict_proba(paths))
    assert all(m.training is False for m in copy.model_.backbone.train().modules())
    fitted.save(tmp_path / "a")
    copy.save(tmp_path / "b")
    assert (tmp_path / "a" / "model.safetensors").read_bytes() == (tmp_path / "b" / "model.safetensors").read_bytes()


@pytest.mark.parametrize("unfreeze", ["none", "last:1"])
def test_saved_and_loaded_twice_it_is_still_the_same(folder, paths, tmp_path, unfreeze):
    clf = ImageClassifier(**TINY, unfreeze=unfreeze, head="mlp:4").fit(folder)
    wanted = clf.predict_proba(paths)
    clf.save(tmp_path / "one")
    loaded = ImageClassifier.load(tmp_path / "one")
    assert np.array_equal(loaded.predict_proba(paths), wanted)
    assert loaded.get_params() == clf.get_params()
    shutil.move(tmp_path / "one", tmp_path / "kept")
    loaded.save(tmp_path / "two")
    assert np.array_equal(ImageClassifier.load(str(tmp_path / "two")).predict_proba(paths), wanted)
    for name in ("recipe.toml", "metrics.jsonl", "split.csv", "labels.json", "preprocess.json"):
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "kept" / name).read_bytes(), name
    said = [json.loads((tmp_path / n / "summary.json").read_text()) for n in ("kept", "two")]
    assert said[0] == {**said[1], "run": str(tmp_path / "one")}


def test_a_published_backbone_is_not_stored_again(paths, labels, tmp_path):
    clf = ImageClassifier(epochs=1).fit([*paths[:4], *paths[-4:]], [*labels[:4], *labels[-4:]])  # the embedded backbone
    clf.save(tmp_path / "one")
    loaded = ImageClassifier.load(tmp_path / "one")
    assert np.array_equal(loaded.predict_proba(paths[:2]), clf.predict_proba(paths[:2]))
    loaded.save(tmp_path / "two")
    one, two = (tmp_path / n / "model.safetensors" for n in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
    assert one.stat().st_size < 100_000


def test_a_run_of_the_command_line(frostline, folder, paths, tmp_path):
    done = frostline("train", folder, "--backbone", "tiny_net:build", "--epochs", "3", "--out", tmp_path / "run", "--quiet")
    assert done.returncode == 0, done.stderr
    loaded = ImageClassifier.load(tmp_path / "run")
    assert loaded.get_params() == ImageClassifier(**TINY).get_params()
    said = [json.loads(line)["probabilities"] for line in frostline("predict", tmp_path / "run", folder, "--json").stdout.splitlines()]
    assert np.array_equal(loaded.predict_proba(paths), [[row["green"], row["red"]] for row in said])
    assert np.array_equal(clone(loaded).fit(folder).predict_proba(paths), loaded.predict_proba(paths))
    loaded.save(tmp_path / "again")
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (tmp_path / "run" / "model.safetensors").read_bytes()


def test_a_loaded_run_keeps_precision_and_dropped_layer(folder, paths, tmp_path, monkeypatch):
    (tmp_path / "net_with_fc.py").write_text(
        "import torch\nfrom tiny_net import build as body\n\n"
        "def build():\n    net = body()\n    return torch.nn.Sequential(__import__('collections').OrderedDict(body=net, fc=torch.nn.Linear(8, 5)))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    recipe = Recipe(data=str(folder), backbone="net_with_fc:build", replace_layer="fc", precision="bf16", epochs=2)
    train_run(recipe, tmp_path / "run", cache=tmp_path / "cache", listen=lambda event: None)
    loaded = ImageClassifier.load(tmp_path / "run")
    wanted = [list(p.probabilities.values()) for p in predict_run(read_run(tmp_path / "run"), paths)]
    assert np.array_equal(loaded.predict_proba(paths), wanted)
    assert (loaded.precision, loaded.replace_layer) == ("bf16", "fc")
    assert np.array_equal(clone(loaded).fit(folder).predict_proba(paths), wanted)
    assert not np.array_equal(clone(loaded).set_params(precision="fp32").fit(folder).predict_proba(paths), wanted)


def test_a_run_without_its_split_loads_and_one_with_a_damaged_one_does_not(fitted, paths, tmp_path):
    fitted.save(tmp_path / "run")
    (tmp_path / "run" / "metrics.jsonl").unlink()
    (tmp_path / "run" / "split.csv").unlink()
    loaded = ImageClassifier.load(tmp_path / "run")
    assert np.array_equal(loaded.predict_proba(paths), fitted.predict_proba(paths))
    (tmp_path / "run" / "split.csv").write_text("path,label,split,group\nx.png,blue,train,\n")
    with pytest.raises(RunError, match="its metrics or its split is damaged"):
        ImageClassifier.load(tmp_path / "run")


def test_a_damaged_label_type_is_refused(paths, tmp_path):
    ImageClassifier(**TINY).fit(paths, [0, 1] * 16).save(tmp_path / "run")
    summary = tmp_path / "run" / "summary.json"
    summary.write_text(summary.read_text().replace('"label_dtype": "int64"', '"label_dtype": "int65"'))
    with pytest.raises(RunError, match="label_dtype 'int65'"):
        ImageClassifier.load(tmp_path / "run")


def test_a_saved_run_knows_what_it_is_familiar_with(paths, labels, tmp_path):
    made = ImageClassifier("tiny_net:build", epochs=2).fit(paths, labels)
    made.save(tmp_path / "a")
    known = read_familiar(tmp_path / "a", made.model_.opened.digest)
    assert known is not None
    with (tmp_path / "a" / "split.csv").open(newline="") as file:
        splits = [row["split"] for row in csv.DictReader(file)]
    assert {splits[row] for row in known.rows} == {"train"}
    ImageClassifier.load(tmp_path / "a").save(tmp_path / "b")
    assert (tmp_path / "b" / "familiar.safetensors").read_bytes() == (tmp_path / "a" / "familiar.safetensors").read_bytes()


@pytest.mark.parametrize("settings", [{"epochs": 2}, {"sweep": 4}, {"head": "ridge"}, {"epochs": 2, "unfreeze": "last:1"}], ids=str)
def test_a_bar_is_shown_where_it_is_asked_for(paths, labels, capsys, settings):
    quiet = ImageClassifier("tiny_net:build", **settings).fit(paths, labels)
    assert capsys.readouterr().err == ""
    loud = ImageClassifier("tiny_net:build", verbose=1, **settings).fit(paths, labels)
    assert "image/s" in capsys.readouterr().err
    assert np.array_equal(loud.predict_proba(paths), quiet.predict_proba(paths))


def test_nothing_is_overwritten(fitted, tmp_path):
    fitted.save(tmp_path / "run")
    with pytest.raises(RunError, match="exists already"):
        fitted.save(tmp_path / "run")


@pytest.mark.parametrize("method", ["predict", "predict_proba", "score", "save"])
def test_not_fitted(method, tmp_path):
    with pytest.raises(NotFittedError):
        getattr(ImageClassifier(**TINY), method)(tmp_path / "x")


TWO = [np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 9, np.uint8)]
WRONG_FITS = {
    "no labels": ((TWO, None), "y: no labels"),
    "fewer labels": ((TWO * 2, ["a", "b", "a"]), "4 pictures and 3 labels"),
    "one class": ((TWO, [5, 5]), "one class only, 5"),
    "nothing": (([], []), "y: shape (0,), expected one label"),
    "table of labels": ((TWO, [[0, 1], [1, 0]]), "y: shape (2, 2)"),
    "one text": ((TWO, "ab"), "y: shape ()"),
    "fractions": ((TWO * 2, [0.5, 1.5, 2.5, 0.1]), "no class labels: Unknown label type: continuous"),
    "a missing label": ((TWO, np.array(["a", None], object)), "no class labels: "),
    "missing files": ((["no/1.png", "no/2.png"], [0, 1]), "2 of 2 files are missing, the first is no/1.png"),
    "no such folder": (("no/folder", None), "no/folder: no such"),
    "labels for a folder that is not there": (("no/folder", [0, 1]), "no/folder: no such"),
    "one picture": ((Image.new("RGB", (4, 4)), [0]), "a single Image, expected a list of pictures"),
    "one array": ((np.zeros((4, 4, 3), np.uint8), [0, 1, 0, 1]), "a single ndarray, expected a list of pictures"),
    "a number": ((7, [0, 1]), "a single int, expected a list of pictures"),
    "floats": (([TWO[0] / 255, TWO[1] / 255], [0, 1]), "X[0]: ndarray of float64 and shape (8, 8, 3)"),
    "channels first": (([TWO[0], TWO[1].T], [0, 1]), "X[1]: ndarray of uint8 and shape (3, 8, 8)"),
    "ints beyond a byte": (([TWO[0].astype(int) + 300], [0]), "X[0]: ndarray of int64"),
    "empty array": (([TWO[0], np.zeros((0, 4, 3), np.uint8)], [0, 1]), "X[1]: ndarray of uint8 and shape (0, 4, 3)"),
    "floating-point picture": (([Image.new("F", (4, 4))], [0]), "X[0]: cannot be used as a picture: cannot write mode F"),
    "None": (([None, None], [0, 1]), "X[0]: NoneType of object"),
}


@pytest.mark.parametrize("what", WRONG_FITS)
def test_what_fit_refuses(what):
    (X, y), words = WRONG_FITS[what]
    with pytest.raises(DataError) as caught:
        ImageClassifier(**TINY).fit(X, y)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_are_no_images(fitted, folder, paths, labels, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_text("no picture")
    for ask in (fitted.predict, fitted.predict_proba, lambda X: fitted.score(X, ["red"] * len(X))):
        with pytest.raises(DecodeError, match=r"bad\.png: no image of a known format"):
            ask([*paths, bad])
    clf = ImageClassifier(**TINY).fit([*paths, bad], [*labels, "red"])
    assert [row["path"] for row in clf.summary_["images_skipped"]] == [str(bad)]
    truncated = tmp_path / "cut.png"
    truncated.write_bytes(paths[0].read_bytes()[:2000])
    with pytest.raises(DataError, match=r"X\[1\]: cannot be used as a picture: .*truncated"):
        fitted.predict([Image.open(paths[0]), Image.open(truncated)])


def test_what_predict_and_score_refuse(fitted, folder, paths, labels, tmp_path):
    with pytest.raises(DataError, match="no such file or folder"):
        fitted.predict(tmp_path / "none")
    with pytest.raises(DataError, match="2 pictures and 1 labels"):
        fitted.score(paths[:2], ["red"])
    with pytest.raises(DataError, match="no labels"):
        fitted.score(paths)
    with pytest.raises(DataError, match=r"labels unknown to training: 0, 1 \(known: 'green', 'red'\)"):
        fitted.score(paths, [int(c == "red") for c in labels])
    with pytest.raises(DataError, match="blue"):
        fitted.score(make_images(tmp_path / "data", {"blue": 2, "red": 2}))


class OfRows(ImageClassifier):
    """Takes the tables that scikit-learn's checks make: each row becomes a plain picture whose colour is the row."""

    def fit(self, X, y=None):
        return super().fit(self.pictures(X), y)

    def predict_proba(self, X):
        return super().predict_proba(self.pictures(X))

    @staticmethod
    def pictures(X):
        colours = (127 + 127 * np.sin(np.asarray(X, float))).round().astype(np.uint8)
        return [np.full((32, 32, 3), np.resize(colour, 3), np.uint8) for colour in colours]


STATIC = """parameters_default_constructible do_not_raise_errors_in_init_or_set_params no_attributes_set_in_init get_params_invariance
    set_params estimator_cloneable estimator_repr estimator_tags_renamed valid_tag_types mixin_order"""
FITTING = """dont_overwrite_parameters estimators_overwrite_params estimators_fit_returns_self estimators_unfitted fit_check_is_fitted
    dict_unchanged estimators_pickle methods_sample_order_invariance methods_subset_invariance readonly_memmap_input"""


@pytest.mark.parametrize("check", STATIC.split())
def test_scikit_learn_checks_the_constructor(check):
    getattr(estimator_checks, f"check_{check}")("ImageClassifier", ImageClassifier(**TINY))


@pytest.mark.parametrize("check", FITTING.split())
def test_scikit_learn_checks_a_fit(check):
    getattr(estimator_checks, f"check_{check}")("OfRows", OfRows(**TINY))


def test_it_does_not_claim_to_take_tables():
    assert not get_tags(ImageClassifier()).input_tags.two_d_array


def test_cross_validation_and_grid_search_over_paths(paths, labels):
    scores = cross_val_score(ImageClassifier(**TINY), paths, labels, cv=2, error_score="raise")
    assert scores.shape == (2,)
    search = GridSearchCV(ImageClassifier(**TINY), {"epochs": np.array([1, 20])}, cv=2, error_score="raise", scoring="neg_log_loss")
    search.fit(np.array([str(p) for p in paths]), labels)
    assert search.best_params_ == {"epochs": 20}
    assert search.best_estimator_.predict_proba(paths).shape == (32, 2)
    assert isinstance(search.predict([Path(paths[0])])[0], str)

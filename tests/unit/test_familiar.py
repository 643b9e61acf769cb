"""What is unfamiliar: the score, its threshold, the file, and what training leaves behind for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from conftest import make_images
from frostline.errors import RunError
from frostline.familiar import FALSE_ALARMS, distinct, familiar_with, read_familiar, write_familiar
from frostline.features.images import ImageSet
from frostline.fitting.looked import drawn
from frostline.pipeline import train
from frostline.recipe import Recipe
from frostline.run import read_run
from frostline.use import Labeller, predict


def cloud(count, seed, size=16, about=0):
    """Directions about one of the axes."""
    random = np.random.default_rng(seed)
    points = random.normal(0, 0.4, (count, size))
    points[:, about] += 3
    return torch.tensor(points, dtype=torch.float32)


def test_the_score_is_what_its_definition_says():
    found = familiar_with(cloud(50, 0), backbone="b")
    query = cloud(3, 1)
    a, b = query / query.norm(dim=1, keepdim=True), found.reference
    by_hand = [sorted(1 - (b @ row))[:10] for row in a]
    wanted = torch.tensor([sum(map(float, row)) / 10 for row in by_hand], dtype=torch.float64) / found.threshold
    assert torch.allclose(found.unfamiliarity(query), wanted, rtol=1e-4)


def test_the_threshold_is_that_of_training_images_left_out():
    features = cloud(200, 0)
    found = familiar_with(features, backbone="b")
    alone = [familiar_with(features[torch.arange(200) != i], backbone="b") for i in range(0, 200, 10)]
    beyond = [
        float(f.unfamiliarity(features[i : i + 1])) * f.threshold > found.threshold for i, f in zip(range(0, 200, 10), alone, strict=True)
    ]
    within = found.unfamiliarity(features) <= 1  # with itself among the nearest an image is nearer than left out
    assert float(within.double().mean()) > 1 - FALSE_ALARMS
    assert sum(beyond) <= 4


def test_new_images_of_the_same_kind_raise_about_one_alarm_in_twenty_and_others_do():
    rates = [float((familiar_with(cloud(150, s), backbone="b").unfamiliarity(cloud(300, 1000 + s)) > 1).double().mean()) for s in range(20)]
    assert np.mean(rates) == pytest.approx(FALSE_ALARMS, abs=0.015)
    strange = familiar_with(cloud(150, 0), backbone="b").unfamiliarity(cloud(300, 7, about=1))
    assert bool((strange > 1).all())


def test_training_images_that_were_drawn_together_need_images_that_were_held_out():
    features, held, new = 0.2 * cloud(150, 0) + cloud(1, 9), cloud(150, 1), cloud(600, 2)
    alone, by_held = familiar_with(features, backbone="b"), familiar_with(features, held, backbone="b")
    assert float((alone.unfamiliarity(new) > 1).double().mean()) > 0.5
    assert float((by_held.unfamiliarity(new) > 1).double().mean()) == pytest.approx(FALSE_ALARMS, abs=0.04)
    assert by_held.calibrated_on == "150 validation images"


def test_an_answer_does_not_depend_on_company():
    found, queries = familiar_with(cloud(50, 0), backbone="b"), cloud(37, 1)
    together = found.unfamiliarity(queries)
    assert torch.equal(together, torch.cat([found.unfamiliarity(q[None]) for q in queries]))
    assert len(found.unfamiliarity(queries[:0])) == 0


def test_too_few_or_all_alike_say_nothing():
    assert familiar_with(cloud(19, 0), backbone="b") is None
    assert familiar_with(cloud(50, 0), cloud(19, 1), backbone="b") is None
    assert familiar_with(torch.ones(50, 4), backbone="b") is None


def test_copies_count_once_and_many_are_drawn():
    images = ImageSet(tuple(Path(str(i)) for i in range(6)), ("a", "b", "a", "c", "b", "d"))
    assert distinct(images, 10, 0) == [0, 1, 3, 5]
    some = drawn(range(1000), 50, 3)
    assert len(set(some)) == 50
    assert some == sorted(some) == drawn(range(1000), 50, 3) != drawn(range(1000), 50, 4)


def test_the_file_reads_back_and_is_the_same_every_time(tmp_path):
    found = familiar_with(cloud(50, 0), backbone="abc")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_familiar(tmp_path / name, found)
    assert (tmp_path / "a" / "familiar.safetensors").read_bytes() == (tmp_path / "b" / "familiar.safetensors").read_bytes()
    again = read_familiar(tmp_path / "a", "abc")
    assert torch.equal(again.reference, found.reference)
    assert (again.threshold, again.backbone, again.calibrated_on) == (found.threshold, "abc", "50 training images, each left out itself")
    assert read_familiar(tmp_path, "abc") is None
    with pytest.raises(RunError, match="another backbone"):
        read_familiar(tmp_path / "a", "other")
    data = (tmp_path / "a" / "familiar.safetensors").read_bytes()
    for broken in (b"", b"no such thing", data[:100], data[:-10]):
        (tmp_path / "a" / "familiar.safetensors").write_bytes(broken)
        with pytest.raises(RunError, match="damaged"):
            read_familiar(tmp_path / "a", "abc")


@pytest.mark.parametrize(
    ("settings", "on"),
    [
        ({}, "48 training images, each left out itself"),
        ({"head": "conv:4"}, "48 training images, each left out itself"),
        ({"augment": "light", "views": "2"}, "48 training images, each left out itself"),
        ({"unfreeze": "all", "epochs": 1}, "12 validation images"),
    ],
)
def test_training_leaves_it_behind(settings, on, images, tmp_path, tiny):
    tiny()
    recipe = Recipe(data=str(images), backbone="tiny_net:build", **{"epochs": 2, **settings})
    train(recipe, tmp_path / "run", cache=tmp_path / "cache", listen=lambda event: None, offline=True)
    if on.startswith("12"):  # fewer than 20 tell nothing
        assert not (tmp_path / "run" / "familiar.safetensors").exists()
        return
    with safe_open(tmp_path / "run" / "familiar.safetensors", "pt") as file:
        assert file.get_slice("reference").get_shape() == [48, 8]
        assert on in file.metadata()["frostline"]
    answers = list(predict(read_run(tmp_path / "run", offline=True), sorted((images / "red").iterdir())))
    assert sum(bool(a.unfamiliar) for a in answers) <= 6
    assert all(a.unfamiliarity > 0 for a in answers)


def test_a_trained_backbone_is_calibrated_by_its_own_features_of_validation_images(tmp_path, tiny):
    tiny()
    data = make_images(tmp_path / "data", {"green": 60, "red": 60})
    recipe = Recipe(data=str(data), backbone="tiny_net:build", unfreeze="last:1", epochs=2)
    train(recipe, tmp_path / "run", cache=tmp_path / "cache", listen=lambda event: None, offline=True)
    labeller = Labeller(read_run(tmp_path / "run", offline=True))
    assert labeller.familiar.calibrated_on == "24 validation images"
    assert labeller.familiar.reference.shape == (96, 8)
    rows = [line.split(",") for line in (tmp_path / "run" / "split.csv").read_text().splitlines()[1:]]
    trained_on = next(Path(r[0]) for r in rows if r[2] == "train")
    (nearest,) = predict(labeller.run, [trained_on])  # its own features are among those that were kept
    assert nearest.unfamiliarity < 1


def test_ants_and_bees(hymenoptera, tmp_path, cache):
    """About one validation image in twenty is called unfamiliar; pictures of other things are."""
    from PIL import Image
    from sklearn.datasets import load_digits

    train(Recipe(data=str(hymenoptera)), tmp_path / "run", cache=cache, listen=lambda event: None, offline=True)
    run = read_run(tmp_path / "run", offline=True)
    val = [a.unfamiliar for a in predict(run, sorted((hymenoptera / "val").rglob("*.jpg")))]
    assert len(val) == 153
    assert sum(val) <= 15
    random = np.random.default_rng(0)
    for i, digit in enumerate(load_digits().images[:10]):
        Image.fromarray((digit * 15).astype(np.uint8)).resize((64, 64)).save(tmp_path / f"digit{i}.png")
        Image.fromarray(random.integers(0, 256, (99, 99, 3), dtype=np.uint8)).save(tmp_path / f"noise{i}.png")
    others = [*sorted(tmp_path.glob("*.png")), hymenoptera / "train" / "ants" / "imageNotFound.gif"]
    assert all(a.unfamiliar for a in predict(run, others))


def test_what_auto_saw_before_it_ended_at_its_probe_is_not_computed_again(tiny_module, images, tmp_path, monkeypatch):
    """With phases of which the first is the last, the backbone is the one that the features are from."""
    monkeypatch.syspath_prepend(str(tiny_module))
    monkeypatch.setattr("frostline.fitting.budget.Clock.too_late_for_another", lambda _: True)
    monkeypatch.setattr("frostline.use.features_of", lambda *_, **__: pytest.fail("the backbone was run once more"))
    recipe = Recipe(data=str(images), backbone="tiny_net:build", strategy="auto", epochs=2, budget="600s")
    told = train(recipe, tmp_path / "run", cache=tmp_path / "cache", listen=lambda _: None, offline=True)
    assert [p["name"] for p in told["phases"]] == ["linear probe"]
    assert (tmp_path / "run" / "familiar.safetensors").exists()

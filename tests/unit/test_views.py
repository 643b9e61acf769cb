"""Augmented views: each a function of (seed, image, number) alone; cached, recomputed and live."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import make_images
from frostline import Compute, EpochDone, Finished, FreezePlan, ImageSet, Preprocess, TransferModel, fit
from frostline.data import decode, read_data
from frostline.data.views import PLAIN, View, Views
from frostline.errors import RecipeError
from frostline.features import FeatureStore, Prefix, prefix_settings
from frostline.features import pixels as pixels_module
from frostline.features.engine import plain
from frostline.features.images import digest_files
from frostline.features.pixels import pixel_batches
from frostline.fitting import FeaturesReady, Planned, StepDone
from frostline.fitting.sources import FeatureRows, ImageRows, view_numbers
from frostline.freeze.crossing import Crossing, Layout

CPU = torch.device("cpu")


def picture(seed=0, size=(48, 40)):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3)).astype(np.uint8))


def pixels(view, image=None, digest="d", interpolation="bilinear"):
    return view.pixels(image or picture(), digest, (32, 24), interpolation)


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("views")
    made = [make_images(folder / name, {"a": n, "b": n}, seed) for name, n, seed in (("train", 10, 0), ("val", 4, 1))]
    return [ImageSet.of(read_data(path)) for path in made]


@pytest.mark.parametrize("augment", ["light", "strong"])
def test_a_view_depends_on_seed_image_and_number_and_on_nothing_else(augment):
    view = View(augment, seed=3, index=2)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = pixels(view)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(999)
    torch.rand(7)
    [pixels(replace(view, index=i)) for i in (5, 0, 2, 9)]  # others in between, in another order
    assert torch.equal(pixels(view), first)
    assert (first.shape, first.dtype) == ((3, 32, 24), torch.uint8)
    others = [pixels(replace(view, seed=4)), pixels(replace(view, index=3)), pixels(view, digest="e")]
    assert not any(torch.equal(first, other) for other in others)
    assert not torch.equal(pixels(View("light", 3, 2)), pixels(View("strong", 3, 2)))


def test_light_keeps_most_of_the_picture_and_its_colours_strong_does_not():
    ramp = np.broadcast_to(np.arange(0, 256, 4, dtype=np.uint8)[:, None, None], (64, 64, 3))  # its rows are their own place
    image = Image.fromarray(np.ascontiguousarray(ramp))
    spans = {}
    for augment in ("light", "strong"):
        views = [View(augment, 0, index).pixels(image, "d", (32, 32), "bilinear").float() for index in range(100)]
        spans[augment] = [float(v.max() - v.min()) / 252 for v in views]
        gray = [bool((v[0] == v[1]).all() and (v[1] == v[2]).all()) for v in views]
        assert all(gray)  # neither shifts hue
    assert min(spans["light"]) > 0.5  # 60 % of the area, 3:4 to 4:3: at least sqrt(0.6 * 3 / 4) = 0.67 of a side, less the smoothing
    assert min(spans["strong"]) < 0.5


def test_half_of_the_light_views_are_flipped():
    ramp = np.ascontiguousarray(np.broadcast_to(np.arange(0, 256, 4, dtype=np.uint8)[None, :, None], (64, 64, 3)))
    made = [View("light", 0, i).pixels(Image.fromarray(ramp), "d", (32, 32), "bilinear").float() for i in range(200)]
    flipped = sum(float(v[0, :, 0].mean()) > float(v[0, :, -1].mean()) for v in made)
    assert 70 < flipped < 130


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
def test_every_interpolation_that_a_backbone_may_want_makes_strong_views(interpolation):
    made = [pixels(View("strong", 0, index), interpolation=interpolation) for index in range(40)]
    assert len({v.numpy().tobytes() for v in made}) == 40


def test_threads_and_company_change_no_view(sets):
    train = sets[0]
    preprocess = TransferModel("tf_efficientnet_lite0").opened.preprocess
    views = [PLAIN if i % 3 == 0 else View("strong", 1, i % 4) for i in range(len(train))]

    def seen(order, sizes):
        batches = pixel_batches(
            [train.paths[i] for i in order], preprocess, sizes, [train.digests[i] for i in order], [views[i] for i in order]
        )
        return dict(zip(order, (p for batch in batches for p in batch), strict=True))

    together = seen(list(range(20)), [7, 7, 6])
    torch.manual_seed(4)
    with ThreadPoolExecutor(1) as pool:
        back = pool.submit(seen, list(reversed(range(20))), [1] * 20).result()
    for i in range(20):
        image = decode(train.paths[i].read_bytes()).image
        alone = (
            preprocess.pixels(image)
            if views[i].plain
            else views[i].pixels(image, train.digests[i], preprocess.crop, preprocess.interpolation)
        )
        assert torch.equal(together[i], alone)
        assert torch.equal(back[i], alone)


def test_each_image_goes_round_all_views_from_a_place_of_its_own():
    rounds = torch.stack([view_numbers(30, 5, epoch, 4) for epoch in range(8)])
    assert all(sorted(rounds[:4, i].tolist()) == [0, 1, 2, 3] for i in range(30))
    assert torch.equal(rounds[:4], rounds[4:])
    assert sorted(torch.bincount(rounds[0]).tolist()) == [7, 7, 8, 8]  # in every epoch each view is shown equally often
    assert not torch.equal(rounds[0], torch.arange(30) % 4)
    assert not torch.equal(view_numbers(30, 6, 0, 4), rounds[0])


def test_rows_of_an_epoch_are_those_of_its_views():
    views = tuple(torch.arange(10.0)[:, None] + 100 * k for k in range(3))
    rows = FeatureRows(views, torch.zeros(10, dtype=torch.int64), Layout.of([views[0]]), seed=2)
    part = torch.tensor([7, 0, 3])
    for epoch in range(4):
        (found,) = rows.batches([part], epoch)
        wanted = part + 100 * view_numbers(10, 2, epoch, 3)[part]
        assert found[:, 0].tolist() == wanted.tolist()
    (plain,) = rows.batches([part])
    assert plain[:, 0].tolist() == part.tolist()


def prefix_of(opened):
    settings = prefix_settings(opened, cut="backbone", weights=opened.digest)
    return Prefix(plain(opened.body, "fp32"), opened.preprocess, CPU, Layout((Crossing((8,)),)), settings)


def test_cached_features_of_a_view_are_those_computed_alone(tiny, sets, tmp_path):
    opened = tiny()
    model = TransferModel(opened)
    views = Views("strong", 3)
    ready = [
        e for e in fit(model, FreezePlan(), *sets, epochs=1, views=views, seed=4, compute=Compute(tmp_path)) if isinstance(e, FeaturesReady)
    ]
    assert (ready[0].extracted.forwarded, ready[0].bytes) == (3 * 20 + 8, (3 * 20 + 8) * 8 * 4)
    prefix = prefix_of(opened)
    stores = {}
    for view in (*views.cached(4), PLAIN):
        stores[view] = FeatureStore.open(tmp_path, prefix.key(view))
        images = sets[1] if view == PLAIN else sets[0]
        assert stores[view].rows.keys() == set(images.digests)
        for i in (0, 5):
            image = decode(images.paths[i].read_bytes()).image
            alone = opened.preprocess.pixels(image) if view.plain else view.pixels(image, images.digests[i], (32, 32), "bilinear")
            assert torch.equal(stores[view].gather([images.digests[i]])[0], prefix(alone[None])[0])
    again = list(fit(TransferModel(tiny()), FreezePlan(), *sets, epochs=1, views=views, seed=4, compute=Compute(tmp_path)))
    assert next(e for e in again if isinstance(e, FeaturesReady)).extracted.hit


def test_the_key_changes_with_the_view(tiny):
    opened = tiny()
    views = [PLAIN, View("light"), View("strong"), View("light", 1), View("light", 0, 1)]
    keys = [prefix_of(opened).key(view).digest for view in views]
    assert len(set(keys)) == len(views)
    assert View("none", 5, 2).settings() == PLAIN.settings()  # nothing is drawn: seed and number change nothing


def trained(tiny, sets, compute, views, unfreeze="none", resume=None, **other):
    model = TransferModel(tiny(), "mlp:5", seed=3)
    settings = {"epochs": 5, "batch_size": 8, "lr": 0.02, "seed": 3} | other
    events = list(fit(model, FreezePlan(unfreeze), *sets, views=views, compute=compute, resume=resume, **settings))
    return model, events


@pytest.mark.parametrize("unfreeze", ["none", "last:1"])
@pytest.mark.parametrize("views", [Views("light", 1), Views("strong", 3)])
def test_recomputed_in_every_epoch_equals_cached_to_the_last_bit(tiny, sets, tmp_path, unfreeze, views):
    cached, events = trained(tiny, sets, Compute(tmp_path), views, unfreeze)
    recomputed, others = trained(tiny, sets, Compute(recompute=True), views, unfreeze)
    assert next(e for e in events if isinstance(e, Planned)).cut.cached
    assert all(torch.equal(t, recomputed.state_dict()[n]) for n, t in cached.state_dict().items())
    for a, b in zip(*[[e for e in seen if isinstance(e, EpochDone)] for seen in (events, others)], strict=True):
        assert (a.train_loss, a.val_loss) == (b.train_loss, b.val_loss)
    assert torch.equal(events[-1].train_logits, others[-1].train_logits)
    plain, _ = trained(tiny, sets, Compute(tmp_path), Views(), unfreeze)
    assert not torch.equal(plain.head.linear.weight, cached.head.linear.weight)


def recorded(monkeypatch):
    """The views and files of every batch of images that training asks for."""
    from frostline.fitting import sources

    asked = []

    def spy(paths, preprocess, sizes, digests=None, views=None):
        asked.append((list(paths), list(views)))
        return pixel_batches(paths, preprocess, sizes, digests, views)

    monkeypatch.setattr(sources, "pixel_batches", spy)
    return asked


def test_live_views_are_others_in_every_epoch_and_validation_images_are_never_augmented(tiny, sets, monkeypatch):
    asked = recorded(monkeypatch)
    model, events = trained(tiny, sets, Compute(), Views("strong", live=True), epochs=3)
    planned = next(e for e in events if isinstance(e, Planned))
    assert (planned.cut.way, planned.cut.name) == ("input", "input")
    assert "every epoch draws new augmentation" in planned.cut.why
    epochs = [views for paths, views in asked if set(paths) == set(sets[0].paths) and not views[0].plain]
    assert [{v.index for v in views} for views in epochs] == [{0}, {1}, {2}]
    assert all(v == PLAIN for paths, views in asked if set(paths) & set(sets[1].paths) for v in views)
    assert isinstance(events[-1], Finished)
    again, others = trained(tiny, sets, Compute(), Views("strong", live=True), epochs=3)
    assert all(torch.equal(t, again.state_dict()[n]) for n, t in model.state_dict().items())
    assert torch.equal(events[-1].val_logits, others[-1].val_logits)
    seeded, _ = trained(tiny, sets, Compute(), Views("strong", live=True), epochs=3, seed=4)
    assert not torch.equal(model.head.linear.weight, seeded.head.linear.weight)


def test_recomputed_validation_images_are_never_augmented_and_views_go_round(tiny, sets, monkeypatch):
    asked = recorded(monkeypatch)
    trained(tiny, sets, Compute(recompute=True), Views("light", 2), epochs=2)
    train = [(paths, views) for paths, views in asked if not views[0].plain]
    assert all(v == PLAIN for paths, views in asked if set(paths) & set(sets[1].paths) for v in views)
    rounds = train[1:3]  # the first is what the head's scale is measured on
    for path in sets[0].paths:
        assert {views[paths.index(path)].index for paths, views in rounds} == {0, 1}
    assert {v.index for v in train[0][1]} == {0}


@pytest.mark.parametrize("views", [Views("strong", 3), Views("light", live=True)])
def test_training_on_views_goes_on_where_it_stopped(tiny, sets, tmp_path, views):
    compute = Compute(tmp_path)
    model = TransferModel(tiny(), "mlp:5", seed=3)
    settings = {"epochs": 3, "batch_size": 8, "lr": 0.02, "seed": 3}
    events = fit(model, FreezePlan("last:1"), *sets, views=views, compute=compute, **settings)
    snapshots = [e.snapshot() for e in events if isinstance(e, StepDone)]
    for snapshot in (snapshots[4], snapshots[5], snapshots[7]):
        again, _ = trained(tiny, sets, compute, views, "last:1", snapshot, epochs=3)
        assert all(torch.equal(t, again.state_dict()[n]) for n, t in model.state_dict().items())


def test_the_heads_scale_is_measured_on_the_same_view_cached_or_not(tiny, sets, tmp_path):
    """On the first view where there are several, on plain pictures where each epoch draws new ones."""
    opened = tiny()
    means = {}
    for name, compute, views in (
        ("cached", Compute(tmp_path), Views("strong", 3)),
        ("recomputed", Compute(recompute=True), Views("strong", 3)),
        ("live", Compute(), Views("strong", live=True)),
        ("plain", Compute(), Views()),
    ):
        means[name] = trained(tiny, sets, compute, views, epochs=1)[0].head.scale.mean
    prefix = prefix_of(opened)
    rows = ImageRows(sets[0], prefix, View("strong", 3), 3)
    (features,) = rows.batches([torch.arange(20)])
    assert torch.equal(means["cached"], features.double().mean(0).float())
    assert torch.equal(means["cached"], means["recomputed"])
    assert torch.allclose(means["live"], means["plain"], rtol=1e-5)
    assert not torch.allclose(means["cached"], means["plain"], rtol=1e-3)


@pytest.mark.parametrize(
    ("augment", "views", "flag"),
    [
        ("medium", "1", "--augment"),
        ("", "1", "--augment"),
        ("light", "0", "--views"),
        ("light", "-1", "--views"),
        ("light", "1.5", "--views"),
        ("light", "many", "--views"),
        ("light", "", "--views"),
        ("none", "2", "--views"),
        ("none", "live", "--views"),
    ],
)
def test_views_that_cannot_be_are_refused(augment, views, flag):
    with pytest.raises(RecipeError, match=flag):
        Views.parse(augment, views)


@pytest.mark.parametrize(("given", "flag"), [(("medium",), "--augment"), (("light", 0), "--views"), (("none", 2), "--views")])
def test_views_that_cannot_be_are_refused_in_code_too(given, flag):
    with pytest.raises(RecipeError, match=flag):
        Views(*given)


def test_what_views_are_read_as():
    assert Views.parse("none", "1") == Views()
    assert Views.parse("strong", "live") == Views("strong", 1, live=True)
    assert Views.parse("light", "3").cached(7) == (View("light", 7, 0), View("light", 7, 1), View("light", 7, 2))
    assert Views().cached(7) == Views("light", live=True).cached(7) == (PLAIN,)


def test_few_pictures_of_full_size_are_held_at_once(images, monkeypatch):
    paths = sorted(images.rglob("*.png"))
    digests = digest_files(paths)
    begun: list[str] = []
    real = pixels_module.load_image
    monkeypatch.setattr(pixels_module, "load_image", lambda path, digest: begun.append(digest) or real(path, digest))
    monkeypatch.setattr(pixels_module, "_MOST_PICTURES", 8)
    made: list[int] = []

    class Counting(View):
        def pixels(self, *given):
            made.append(len(begun))
            return super().pixels(*given)

    views = [Counting("light", 0)] * len(paths)
    batches = list(pixel_batches(paths, Preprocess((32, 32), 32), [len(paths) - 10, 10], digests, views))
    assert [len(b) for b in batches] == [len(paths) - 10, 10]
    assert all(ahead - number <= 8 for number, ahead in enumerate(made))
    assert len(made) == len(paths)

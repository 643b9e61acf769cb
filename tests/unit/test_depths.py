"""A backbone tapped at every block: pooled features of all depths in one pass, and heads that sit on one of them."""

from __future__ import annotations

import pickle
from dataclasses import replace

import pytest
import torch
from torch import nn

from frostline import Compute, Finished, FreezePlan, ImageSet, TransferModel, fit, open_backbone
from frostline.data import ensure_splits, read_data
from frostline.errors import HeadError
from frostline.features.depths import ALL, END, at_depths, joined, up_to
from frostline.features.fold import folded
from frostline.features.pixels import pixel_batches
from frostline.fitting import DepthChosen, Planned, StepDone, Swept, depth
from frostline.fitting.candidates import SteppedHead
from frostline.freeze.apply import evaluating
from frostline.freeze.layers import layers_of
from frostline.heads import HeadSpec

NETWORKS = ("tf_efficientnet_lite0", "resnet18", "vit_tiny_patch16_224", "convnext_atto", "hrnet_w18_small")


def opened(name):
    return open_backbone(name, "default" if name == "tf_efficientnet_lite0" else "random")


def pictures(backbone):
    return torch.randn(2, 3, *backbone.preprocess.crop, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", NETWORKS)
def test_each_depth_is_what_hooks_see_pooled(name):
    backbone = opened(name)
    depths, images = at_depths(backbone), pictures(backbone)
    met = {}
    blocks = {b.modules[-1]: b.name for b in layers_of(backbone.body).blocks}

    def keep(block):
        return lambda module, given, out: met.__setitem__(block, out.clone() if isinstance(out, torch.Tensor) else None)

    hooks = [backbone.body.get_submodule(m).register_forward_hook(keep(b)) for m, b in blocks.items()]
    with torch.no_grad(), evaluating(backbone.body):
        end = backbone.body(images)
        for hook in hooks:
            hook.remove()
        found = dict(zip(depths.names, depths.body(images), strict=True))
    assert torch.equal(found.pop(END), end)
    assert len(found) >= 7
    assert depths.why == ""
    for block, vector in found.items():
        wanted = met[block].mean((2, 3)) if met[block].ndim == 4 else met[block].mean(1)
        assert torch.equal(vector, wanted), block


def test_no_layer_is_copied_and_batch_norm_folds():
    backbone = opened("tf_efficientnet_lite0")
    depths, images = at_depths(backbone), pictures(backbone)
    own = {id(p) for p in backbone.body.parameters()}
    assert {id(p) for p in depths.body.parameters()} == own
    quick = folded(depths.body)
    assert quick is not None
    with torch.no_grad(), evaluating(backbone.body), evaluating(quick):
        for a, b in zip(quick(images), depths.body(images), strict=True):
            assert torch.allclose(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_backbone_up_to_a_block_is_that_depth_without_the_rest(name):
    backbone = opened(name)
    depths, images = at_depths(backbone), pictures(backbone)
    place = len(depths.names) // 2
    part = up_to(backbone, depths.names[place])
    with torch.no_grad(), evaluating(backbone.body):
        assert torch.equal(part.body(images), depths.body(images)[place])
    whole, left = dict(backbone.body.named_parameters()), dict(part.body.named_parameters())
    assert 0 < len(left) < len(whole)
    assert all(whole[n] is p for n, p in left.items())
    names = [b.name for b in layers_of(backbone.body).blocks]
    assert [b.name for b in layers_of(part.body).blocks] == names[: names.index(depths.names[place]) + 1]


@pytest.mark.parametrize("name", NETWORKS)
def test_all_depths_side_by_side_are_one_backbone_with_the_same_layers(name):
    backbone = opened(name)
    depths, images = at_depths(backbone), pictures(backbone)
    whole = up_to(backbone, ALL)
    with torch.no_grad(), evaluating(backbone.body):
        given, found = depths.body(images), whole.body(images)
    wanted = torch.cat([nn.functional.layer_norm(v.double(), v.shape[1:], eps=1e-12).float() for v in given], 1)
    assert torch.allclose(found, wanted, atol=1e-5)
    assert torch.equal(found, joined(given))
    assert found.shape == (2, depths.layout.size)
    flat = torch.cat(given, 1)
    assert torch.equal(depths.at(ALL, flat), found)
    assert torch.equal(depths.at(depths.names[1], flat), given[1])
    mine, theirs = dict(backbone.body.named_parameters()), dict(whole.body.named_parameters())
    assert theirs.keys() == mine.keys()
    assert all(mine[n] is p for n, p in theirs.items())
    assert [b.name for b in layers_of(whole.body).blocks] == [b.name for b in layers_of(backbone.body).blocks]


def test_a_depth_without_any_difference_is_no_division_by_zero():
    assert torch.equal(joined([torch.ones(2, 3), torch.zeros(2, 1)]), torch.zeros(2, 4))


@pytest.mark.parametrize("unfreeze", ["none", "last:1"])
def test_a_head_on_all_depths_learns_the_same_with_and_without_a_cache(tiny, images, tmp_path, unfreeze):
    listed = ImageSet.of(read_data(images))
    manifest = ensure_splits(read_data(images), listed.digests, 0)
    sets = ImageSet.of(manifest.only("train")), ImageSet.of(manifest.only("val"))
    models = []
    for recompute in (False, True):
        torch.manual_seed(0)
        models.append(TransferModel(tiny(), "linear@all"))
        compute = Compute(tmp_path, recompute=recompute, engine="plain")
        events = list(fit(models[-1], FreezePlan(unfreeze), *sets, compute=compute, epochs=3))
        finished = events[-1]
        assert next(e for e in events if isinstance(e, Planned)).hyper.lr == (3e-4 if unfreeze == "none" else 1e-3)
        assert finished.audit.frozen_unchanged
        assert finished.audit.trainable_moved
    for (name, one), other in zip(models[0].state_dict().items(), models[1].state_dict().values(), strict=True):
        assert torch.allclose(one, other, atol=1e-5), name
    again = pickle.loads(pickle.dumps(models[0]))
    with torch.no_grad(), evaluating(again), evaluating(models[0]):
        assert torch.equal(again(models[0].example(2)), models[0](models[0].example(2)))


def test_a_sweep_on_all_depths_is_made_around_their_own_rate(tiny, images, tmp_path):
    listed = ImageSet.of(read_data(images))
    manifest = ensure_splits(read_data(images), listed.digests, 0)
    model = TransferModel(tiny(), "linear@all")
    events = list(fit(model, FreezePlan(), ImageSet.of(manifest.only("train")), epochs=2, sweep=4))
    swept = next(e for e in events if isinstance(e, Swept))
    rates = sorted(j.candidate.lr for j in swept.judged if isinstance(j.candidate, SteppedHead))
    assert rates[0] < 3e-4 < rates[-1]
    assert {j.candidate.head.at for j in swept.judged} == {ALL}
    assert model.head_spec == swept.chosen.candidate.head


def test_another_depth_is_not_taken_after_an_interruption(tiny, images, tmp_path, monkeypatch):
    """With a budget more depths may be looked at the second time than the first."""
    listed = ImageSet.of(read_data(images))
    manifest = ensure_splits(read_data(images), listed.digests, 0)
    sets = ImageSet.of(manifest.only("train")), ImageSet.of(manifest.only("val"))
    ridges = depth._ridges
    monkeypatch.setattr(depth, "_ridges", lambda features, *rest: {END: ridges(features, *rest)[END]})
    compute, kept = Compute(tmp_path), None
    for event in fit(TransferModel(forgetful(tiny), "linear@auto"), FreezePlan(), *sets, compute=compute, epochs=3):
        if isinstance(event, DepthChosen):
            assert "that there was time for" in event.why
        if isinstance(event, StepDone):
            kept = event.snapshot()
            break
    monkeypatch.setattr(depth, "_ridges", ridges)
    model = TransferModel(forgetful(tiny), "linear@auto")
    events = list(fit(model, FreezePlan(), *sets, compute=compute, epochs=3, resume=kept))
    assert next(e for e in events if isinstance(e, DepthChosen)).chosen == END
    assert model.head_spec.at is None


def forgetful(tiny):
    """A backbone whose last layers have forgotten everything: its features are the same for all images."""
    backbone = tiny()
    with torch.no_grad():
        backbone.body.body[0].weight.zero_()
    return replace(backbone, digest="")


@pytest.mark.parametrize("sweep", [0, 7])
def test_a_head_goes_where_something_is_known(tiny, images, tmp_path, sweep):
    listed = ImageSet.of(read_data(images))
    manifest = ensure_splits(read_data(images), listed.digests, 0)
    sets = ImageSet.of(manifest.only("train")), ImageSet.of(manifest.only("val"))
    model = TransferModel(forgetful(tiny), "linear@auto")
    events = list(fit(model, FreezePlan(), *sets, compute=Compute(tmp_path), epochs=3, sweep=sweep))
    told = next(e for e in events if isinstance(e, DepthChosen))
    assert told.names == ("stem.0", "body.0", END, ALL)
    assert told.chosen in ("stem.0", ALL)
    assert model.head_spec.at == told.chosen
    assert events[-1].audit.frozen_unchanged
    if sweep:
        swept = next(e for e in events if isinstance(e, Swept))
        assert {j.candidate.head.at for j in swept.judged} == {None, "stem.0", ALL}
        assert "not taken" not in told.why
        assert swept.chosen.candidate.head == model.head_spec
        assert "best of all heads of the sweep" in told.why
    seen = ImageSet.of(manifest.only("val"))
    with torch.no_grad(), evaluating(model):
        pixels = [p for batch in pixel_batches(seen.paths, model.opened.preprocess, [len(seen)]) for p in batch]
        logits = model(model.opened.preprocess.normalise(torch.stack(pixels)))
    assert torch.allclose(logits, events[-1].val_logits, atol=1e-4)


class Vectors(nn.Module):
    """A block that gives a vector, and a step behind it that works in place."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.blocks = nn.ModuleList([nn.Linear(4, 6), nn.Linear(6, 5)])
        self.gain = nn.Parameter(torch.ones(5))

    def forward(self, x):
        return self.blocks[1](nn.functional.relu(self.blocks[0](self.stem(x)), inplace=True)) * self.gain


def test_a_vector_is_tapped_before_a_later_step_works_on_it():
    backbone = open_backbone(Vectors())
    depths, images = at_depths(backbone), pictures(backbone)
    with torch.no_grad(), evaluating(backbone.body):
        tapped = dict(zip(depths.names, depths.body(images), strict=True))
        assert bool((tapped["blocks.0"] < 0).any())
        assert torch.equal(tapped["blocks.0"], up_to(backbone, "blocks.0").body(images))


def test_which_depths_there_are_does_not_hang_on_the_values_of_weights():
    """A run is read into a network that has no weights yet."""
    first, trained = Vectors(), Vectors()
    with torch.no_grad():
        trained.gain.mul_(2)
    assert at_depths(open_backbone(first)).names == at_depths(open_backbone(trained)).names == ("stem.0", "blocks.0", "blocks.1", END)
    assert at_depths(opened("resnet18")).names[-2] != "layer4.1"  # whose mean is what the backbone gives, whatever the weights


class Undecided(nn.Module):
    """Its forward pass depends on values."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3)

    def forward(self, x):
        x = self.conv(x)
        return x.relu() if float(x.sum()) > 0 else x.abs()


def test_a_network_that_cannot_be_read_is_tapped_at_its_end_and_says_why():
    backbone = open_backbone(Undecided())
    depths = at_depths(backbone)
    assert depths.names == (END,)
    assert "cannot be read" in depths.why
    with torch.no_grad(), evaluating(backbone.body):
        assert torch.equal(depths.body(backbone.example(2))[0], backbone.body(backbone.example(2)).mean((2, 3)))
    with pytest.raises(HeadError, match="cannot be read"):
        TransferModel(backbone, "linear@conv")
    with pytest.raises(HeadError, match="one depth only"):
        TransferModel(backbone, "linear@all")


@pytest.mark.parametrize(
    ("head", "what"),
    [("linear@blocks.4.9", "did you mean blocks.4"), ("linear@", "names no block"), ("conv:8@blocks.4.2", "last feature map only")],
)
def test_heads_on_no_depth_are_refused(head, what):
    with pytest.raises(HeadError, match=what):
        TransferModel("tf_efficientnet_lite0", head)


@pytest.mark.parametrize("text", ["linear@stem.0", "mlp:16@blocks.1.0", "ridge@a.b", "logistic@all"])
def test_a_spec_is_written_as_it_is_read(text):
    assert str(HeadSpec.parse(text)) == text


@pytest.mark.parametrize("kind", ["linear", "ridge", "mlp:4"])
def test_a_head_on_a_block_is_trained_with_all_before_it_frozen(tiny, images, tmp_path, kind):
    listed = ImageSet.of(read_data(images))
    manifest = ensure_splits(read_data(images), listed.digests, 0)
    model = TransferModel(tiny(), f"{kind}@stem.0")
    assert "body.0.weight" not in dict(model.backbone.named_parameters())
    sets = ImageSet.of(manifest.only("train")), ImageSet.of(manifest.only("val"))
    compute = Compute(tmp_path)
    more = {} if kind == "ridge" else {"epochs": 3}
    finished = next(e for e in fit(model, FreezePlan(), *sets, compute=compute, **more) if isinstance(e, Finished))
    assert finished.audit.frozen_unchanged
    assert finished.audit.trainable_moved
    assert finished.val_logits.shape[1] == model.num_classes


def test_features_of_all_depths_are_known_by_the_graph_that_gave_them():
    from frostline.features.known import backbone_subject, prefix_subject
    from frostline.fitting.depth import tapped

    backbone = opened("resnet18")
    _, parts = tapped(backbone, nn.Identity())
    asked = {"device": torch.device("cpu"), "precision": "fp32", "engine": "plain"}
    found = prefix_subject(parts, backbone, **asked)
    plain = backbone_subject(backbone, weights=backbone.digest, **asked)
    assert found.settings["cut"] == "depths"
    assert found.settings["code"] != plain.settings["code"]

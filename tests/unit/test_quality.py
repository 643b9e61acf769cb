"""Data quality: every finding on a planted case, and nothing where nothing is planted."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from frostline.data.units import exact_copies, grouped, joined, units_of
from frostline.features.images import ImageSet, digest_files
from frostline.fitting.events import Seen
from frostline.quality import examine
from frostline.quality.files import converted, read_headers, tiny
from frostline.quality.held_out import FOLDS, held_out
from frostline.quality.leak import near_copies_across
from frostline.quality.likeness import likenesses, thumbnail
from frostline.quality.near import candidates, confirmed, thumbnails_of
from frostline.quality.neighbours import BLOCK, Neighbours, directions, nearest, unit_length
from frostline.quality.outliers import FEWEST, outlyingness
from frostline.quality.overlap import confusion_of, overlaps
from frostline.quality.suspects import find_suspects
from frostline.recipe import Recipe


def blobs(counts, distance=6.0, size=16, seed=0):
    """Features ``(N, d)`` of classes around their own centres, and labels."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.cat([torch.full((n,), i) for i, n in enumerate(counts)])
    centres = torch.eye(size)[: len(counts)] * distance
    return centres[labels] + torch.randn(len(labels), size, generator=draw), labels


def photograph(seed=0, size=(160, 120)):
    """Smooth colours, as photographs have."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


def recompressed(image, quality):
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return Image.open(stream)


def likeness_of(a, b):
    return likenesses(thumbnail(a)[None], thumbnail(b)[None])[0]


class TestCopies:
    def test_groups_are_whole_and_singles_are_none(self):
        assert exact_copies(["x", "y", "x", "z", "y", "x"]) == [(0, 2, 5), (1, 4)]
        assert exact_copies(["x", "y", "z"]) == []

    def test_groups_of_a_manifest(self):
        assert grouped(["a", None, "b", "a", None]) == [(0, 3)]

    def test_links_are_transitive(self):
        assert joined(6, [(4, 5), (0, 4), (2, 3)]) == [0, 1, 2, 2, 0, 0]
        assert joined(3, []) == [0, 1, 2]

    def test_copies_and_groups_link(self):
        assert units_of("abcab", [None, "g", "g", "h", "h"]) == (0, 0, 0, 0, 0)
        assert units_of("abca") == (0, 1, 2, 0)
        images = ImageSet(tuple(map(Path, "wxyz")), tuple("aabc"), (0, 1, 0, 1), (None, None, "g", "g"))
        assert images.units == (0, 0, 2, 2)
        assert images.only([3, 0]).groups == ("g", None)
        assert (images + ImageSet((Path("v"),), ("c",), (0,))).units == (0, 0, 2, 2, 2)


class TestNeighbours:
    def test_blocks_give_what_the_whole_matrix_gives(self):
        x = unit_length(torch.randn(BLOCK + 70, 9, generator=torch.Generator().manual_seed(1)))
        whole = x @ x.T
        whole.fill_diagonal_(-torch.inf)
        found = nearest(x, x, 4, same=True)
        assert torch.allclose(found.similarity, whole.topk(4).values, atol=1e-6)
        assert torch.equal(found.rows, whole.topk(4).indices)

    def test_fewer_images_than_neighbours(self):
        assert nearest(torch.eye(3), torch.eye(3), 10, same=True).rows.shape == (3, 2)
        assert nearest(torch.eye(1), torch.eye(1), 10, same=True).rows.shape == (1, 0)

    def test_an_image_without_features_has_no_direction(self):
        assert torch.equal(unit_length(torch.zeros(1, 4)), torch.zeros(1, 4))
        assert torch.isfinite(directions(torch.ones(3, 4))).all()


class TestLikeness:
    @pytest.mark.parametrize("seed", range(5))
    @pytest.mark.parametrize(
        "change",
        [
            lambda i: recompressed(i, 50),
            lambda i: i.resize((i.width // 2, i.height // 2)),
            lambda i: i.convert("L"),
            lambda i: i.point(lambda v: v // 2 + 60),
            lambda i: i.crop((0, 0, int(0.9 * i.width), int(0.9 * i.height))),
            lambda i: i.crop((int(0.15 * i.width), 5, i.width, i.height - 10)),
        ],
        ids=["jpeg 50", "half", "gray", "faded", "corner", "off centre"],
    )
    def test_altered_copies_are_alike(self, seed, change):
        image = photograph(seed)
        found = likeness_of(change(image), image)
        assert found.value >= 0.9
        assert not found.mirrored
        assert likeness_of(image, change(image)).value >= 0.9

    def test_mirrored_copies_are_told_apart(self):
        image = photograph()
        found = likeness_of(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), image)
        assert found.value >= 0.99
        assert found.mirrored

    @pytest.mark.parametrize("seed", range(5))
    def test_different_pictures_are_not(self, seed):
        assert likeness_of(photograph(seed), photograph(seed + 100)).value < 0.8

    @pytest.mark.parametrize(("a", "b", "alike"), [("black", "black", 1.0), ("black", "white", 0.0), ("gray", None, 0.0)])
    def test_flat_pictures(self, a, b, alike):
        other = photograph() if b is None else Image.new("RGB", (40, 30), b)
        assert likeness_of(Image.new("RGB", (50, 50), a), other).value == alike


class TestNear:
    def test_each_pair_is_named_once_and_the_most_similar_first(self):
        found = Neighbours(torch.tensor([[1, 2], [0, 2], [1, 0]]), torch.tensor([[0.9, 0.6], [0.9, 0.95], [0.95, 0.6]]))
        assert [pair[:2] for pair in candidates(found, least=0.55)] == [(1, 2), (0, 1), (0, 2)]
        assert [pair[:2] for pair in candidates(found, least=0.92)] == [(1, 2)]
        assert [pair[:2] for pair in candidates(found, least=0.0, most=2)] == [(1, 2), (0, 1)]

    def test_pixels_decide(self):
        thumbnails = {i: thumbnail(image) for i, image in enumerate([photograph(1), recompressed(photograph(1), 40), photograph(2)])}
        found = confirmed([(0, 1, 0.8), (0, 2, 0.9), (1, 2, 0.9), (2, 7, 0.9)], thumbnails)
        assert [copy.rows for copy in found] == [(0, 1)]
        assert found[0].similarity == 0.8
        assert confirmed([], {}) == []

    def test_a_file_that_is_gone_has_no_thumbnail(self, tmp_path):
        photograph().save(tmp_path / "a.png")
        paths = [tmp_path / "a.png", tmp_path / "gone.png"]
        assert set(thumbnails_of([0, 1], paths, digest_files(paths))) == {0}


class TestHeldOut:
    def test_a_wrong_label_is_judged_by_others(self):
        x, y = blobs((40, 40, 40))
        given = y.clone()
        given[3] = 2
        held = held_out(x, given, 3, range(120), seed=0)
        assert held is not None
        assert torch.equal(held.rows, torch.arange(120))
        assert torch.allclose(held.probabilities.sum(1), torch.ones(120, dtype=torch.float64))
        assert int(held.probabilities[3].argmax()) == 0
        assert float((held.probabilities.argmax(1) == y).double().mean()) > 0.95

    def test_copies_are_held_out_together(self):
        """Twelve copies of one image under a wrong label: a head that has seen some of them believes the label."""
        x, y = blobs((40, 40))
        x = torch.cat([x, x[:1].expand(12, -1)])
        y = torch.cat([y, torch.ones(12, dtype=torch.int64)])
        copies = list(range(80, 92))
        apart = held_out(x, y, 2, range(92), seed=0)
        together = held_out(x, y, 2, joined(92, [copies]), seed=0)
        assert apart is not None
        assert together is not None
        assert float(together.probabilities[copies, 0].min()) > 0.8 > 0.2 > float(apart.probabilities[copies, 0].max())

    def test_classes_of_one_image_are_left_out_and_small_ones_are_judged(self):
        x, y = blobs((40, 1, 30, 2))
        held = held_out(x, y, 4, range(73), seed=0)
        assert held is not None
        assert held.left_out == (1,)
        assert len(held.rows) == 72
        assert 40 not in held.rows.tolist()
        assert float(held.probabilities[:, 1].max()) == 0
        assert torch.isfinite(held.probabilities).all()

    @pytest.mark.parametrize("counts", [(10,), (10, 1), (1, 1, 1)])
    def test_too_little_to_judge(self, counts):
        x, y = blobs(counts)
        assert held_out(x, y, len(counts), range(len(y)), seed=0) is None

    def test_the_seed_decides(self):
        x, y = blobs((30, 30), distance=2.0)
        first, again, other = (held_out(x, y, 2, range(60), seed=s) for s in (0, 0, 1))
        assert first is not None
        assert again is not None
        assert other is not None
        assert torch.equal(first.probabilities, again.probabilities)
        assert not torch.equal(first.probabilities, other.probabilities)

    def test_many_images_choose_the_strength_on_a_sample(self, monkeypatch):
        x, y = blobs((200, 200), distance=6.0)
        monkeypatch.setattr("frostline.quality.held_out.SAMPLE", 60)
        monkeypatch.setattr("frostline.quality.held_out.DIRECTIONS", 5)
        held = held_out(x, y, 2, range(400), seed=0)
        assert held is not None
        assert float((held.probabilities.argmax(1) == y).double().mean()) > 0.9
        assert FOLDS == 5


class TestSuspects:
    def test_planted_wrong_labels_are_found(self):
        x, y = blobs((60, 60, 60))
        wrong = {5, 70, 130, 131}
        given = y.clone()
        for row in wrong:
            given[row] = (y[row] + 1) % 3
        held = held_out(x, given, 3, range(180), seed=0)
        assert held is not None
        found = find_suspects(held.probabilities, held.labels)
        assert {s.row for s in found[:4]} == wrong
        assert len(found) <= 6
        assert all(s.likely == int(y[s.row]) and s.given == int(given[s.row]) for s in found[:4])

    def test_right_labels_are_left_alone(self):
        x, y = blobs((60, 60, 60), distance=12.0)
        held = held_out(x, y, 3, range(180), seed=0)
        assert held is not None
        assert find_suspects(held.probabilities, held.labels) == []

    def test_an_unsure_head_accuses_nobody(self):
        assert find_suspects(torch.full((20, 4), 0.25, dtype=torch.float64), torch.arange(20) % 4) == []

    @pytest.mark.parametrize("classes", [2, 3, 10])
    @pytest.mark.parametrize("seed", range(3))
    def test_against_cleanlab(self, classes, seed):
        """The same images, but where several classes count and the most probable of all does not: cleanlab takes that one, the paper not."""
        rule = pytest.importorskip("cleanlab.filter").find_label_issues
        draw = np.random.default_rng(seed)
        true = draw.integers(classes, size=400)
        given = np.where(draw.random(400) < 0.15, draw.integers(classes, size=400), true)
        logits = draw.normal(size=(400, classes)) + 3.0 * np.eye(classes)[true]
        p = torch.from_numpy(logits).softmax(1)
        theirs = rule(given, p.numpy(), filter_by="confident_learning", return_indices_ranked_by="normalized_margin", n_jobs=1)
        ours = [s.row for s in find_suspects(p, torch.from_numpy(given))]
        own = p[torch.arange(400), torch.from_numpy(given)].numpy()
        threshold = np.array([own[given == c].mean() for c in range(classes)])
        counting = p.numpy() >= threshold - 1e-6
        agreeing = {i for i in range(400) if counting[i].sum() < 2 or counting[i, int(p[i].argmax())]}
        assert len(agreeing) > 380
        assert [i for i in ours if i in agreeing and p[i].argmax() != given[i]] == [
            int(i) for i in sorted(theirs, key=lambda i: (own[i] - float(p[i][counting[i]].max()), i)) if i in agreeing
        ]
        assert len(ours) > 10


class TestOutliers:
    def test_the_stranger_comes_first_and_is_called(self):
        draw = torch.Generator().manual_seed(0)
        x = torch.cat([1 + 0.2 * torch.randn(60, 32, generator=draw), -torch.ones(1, 32)])
        length = unit_length(x)
        found = outlyingness(nearest(length, length, 10, same=True))
        assert found.order[0] == 60
        assert found.called[0] == 60
        assert len(found.called) <= 3

    def test_equals_have_no_outlier(self):
        x = unit_length(1 + 0.2 * torch.randn(300, 32, generator=torch.Generator().manual_seed(1)))
        assert len(outlyingness(nearest(x, x, 10, same=True)).called) <= 6

    @pytest.mark.parametrize("count", [1, 2, FEWEST - 1])
    def test_of_few_images_none_is_called(self, count):
        x = torch.eye(FEWEST)[:count]
        found = outlyingness(nearest(x, x, 10, same=True))
        assert found.threshold is None
        assert found.called == ()
        assert len(found.order) == count


class TestOverlap:
    def test_two_of_many_classes_are_confused(self):
        counts = torch.eye(5, dtype=torch.int64) * 80
        counts[1, 3], counts[3, 1], counts[0, 2] = 20, 15, 1
        found = overlaps(counts)
        assert [o.classes for o in found] == [(1, 3)]
        assert (found[0].confused, found[0].images) == (35, 195)
        assert found[0].interval[0] < found[0].share < found[0].interval[1]

    @pytest.mark.parametrize("confused", [0, 2, 8])
    def test_what_wrong_labels_explain_is_no_overlap(self, confused):
        assert overlaps(torch.tensor([[100 - confused, confused], [0, 100]])) == []

    def test_mistakes_that_fall_evenly_are_no_overlap(self):
        """A head that knows nothing: everything is confused with everything, and nothing more than the rest."""
        assert overlaps(torch.full((4, 4), 25)) == []

    def test_a_class_that_everybody_is_taken_for_overlaps_with_nobody(self):
        counts = torch.eye(6, dtype=torch.int64) * 40
        counts[:, 2] += 60
        assert overlaps(counts) == []
        counts[4, 5] += 60
        assert [o.classes for o in overlaps(counts)] == [(4, 5)]

    def test_confusion_against_scikit_learn(self):
        from sklearn.metrics import confusion_matrix

        draw = torch.Generator().manual_seed(0)
        p, y = torch.rand(90, 4, generator=draw), torch.randint(0, 4, (90,), generator=draw)
        assert confusion_of(p, y).tolist() == confusion_matrix(y, p.argmax(1), labels=range(4)).tolist()


class TestFiles:
    def test_kinds_and_sides(self, tmp_path):
        for name, mode, size in (("a.png", "RGB", (90, 80)), ("b.png", "L", (50, 90)), ("c.gif", "P", (20, 90)), ("d.png", "L", (90, 90))):
            Image.new(mode, size).save(tmp_path / name)
        (tmp_path / "e.jpg").write_text("no picture")
        headers = read_headers([tmp_path / n for n in ("a.png", "b.png", "c.gif", "d.png", "e.jpg", "gone.png")])
        assert converted(headers) == {"PNG grayscale": 2, "GIF palette": 1}
        assert tiny(headers, 60) == [2, 1]
        assert headers[4:] == [None, None]


def seen(folder, features):
    paths = sorted(folder.iterdir())
    return Seen(ImageSet(tuple(paths), tuple(digest_files(paths)), (0,) * len(paths)), features)


class TestLeak:
    @pytest.fixture
    def folders(self, tmp_path):
        for split in ("train", "val"):
            (tmp_path / split).mkdir()
        for seed in range(4):
            photograph(seed).save(tmp_path / "train" / f"{seed}.png")
        recompressed(photograph(2), 60).save(tmp_path / "val" / "a.jpg")
        photograph(9).save(tmp_path / "val" / "b.png")
        return tmp_path

    def test_the_copy_is_found_and_the_similar_picture_is_not(self, folders):
        x = torch.eye(8)[:4] * 5
        val = torch.stack([x[2] + 0.1, x[1] + 0.1])  # b.png has the features of 1.png, and other pixels
        assert near_copies_across(seen(folders / "train", x), seen(folders / "val", val)) == [
            (folders / "train" / "2.png", folders / "val" / "a.jpg")
        ]

    def test_exact_copies_are_not_told_twice(self, folders):
        (folders / "val" / "a.jpg").write_bytes((folders / "train" / "2.png").read_bytes())
        x = torch.eye(8)[:4] * 5
        assert near_copies_across(seen(folders / "train", x), seen(folders / "val", x[[2, 1]])) == []

    def test_nobody_looks_where_it_takes_long_or_a_file_has_changed(self, folders, monkeypatch):
        x = torch.eye(8)[:4] * 5
        train, val = seen(folders / "train", x), seen(folders / "val", x[[2, 1]])
        photograph(5).save(folders / "val" / "a.jpg")
        assert near_copies_across(train, val) is None
        monkeypatch.setattr("frostline.quality.leak.MOST_PRODUCTS", 10)
        assert near_copies_across(train, val) is None


def test_the_placeholder_among_ants_and_bees_comes_first(hymenoptera, cache):
    """And no two of the real images are called copies: each pair of candidates was looked at (docs/data-quality.md)."""
    found = examine(Recipe(data=str(hymenoptera)), cache=cache, listen=lambda _: None, offline=True)
    first = found.outliers[0]
    assert found.pictures[first.row].path.name == "imageNotFound.gif"
    assert first.called
    assert sum(o.called for o in found.outliers) <= 20
    assert found.exact == ()
    assert found.near == ()
    assert len(found.suspects) <= 10
    assert found.converted == {"GIF palette": 1}
    again = examine(Recipe(data=str(hymenoptera)), cache=cache, listen=lambda _: None, offline=True)
    assert again.extracted.hit
    assert {**again.to_json(), "seconds": 0, "cache": 0} == {**found.to_json(), "seconds": 0, "cache": 0}

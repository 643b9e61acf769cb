"""A scikit-learn pipeline on frozen features is scikit-learn on those features."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

import frostline as fl
from frostline.errors import BackboneError, DecodeError
from frostline.extractor import FeatureExtractor


@pytest.fixture
def labelled(images, tiny):
    tiny()
    paths = sorted(images.rglob("*.png"))
    return [str(p) for p in paths], [p.parent.name for p in paths]


def test_features_are_those_of_the_backbone_alone(labelled):
    X, _ = labelled
    found = FeatureExtractor("tiny_net:build").fit_transform(X)
    opened = fl.open_backbone("tiny_net:build")
    from PIL import Image

    pixels = torch.stack([opened.preprocess.pixels(Image.open(p).convert("RGB")) for p in X])
    with torch.no_grad():
        wanted = opened.body.eval()(opened.preprocess.normalise(pixels))
    assert found.shape == (60, 8)
    assert np.allclose(found, wanted.numpy(), atol=1e-5)


def test_a_pipeline_is_the_same_steps_by_hand(labelled, tmp_path):
    X, y = labelled
    extractor = FeatureExtractor("tiny_net:build", cache_dir=tmp_path)
    pipeline = make_pipeline(extractor, StandardScaler(), SVC(random_state=0)).fit(X[::2], y[::2])
    features = extractor.transform(X)
    scaler = StandardScaler().fit(features[::2])
    by_hand = SVC(random_state=0).fit(scaler.transform(features[::2]), y[::2]).predict(scaler.transform(features[1::2]))
    assert pipeline.predict(X[1::2]).tolist() == by_hand.tolist()
    assert cross_val_score(pipeline, X, y, cv=3).shape == (3,)
    search = GridSearchCV(pipeline, {"svc__C": [0.1, 1.0]}, cv=2).fit(X, y)
    assert search.best_params_["svc__C"] in (0.1, 1.0)


def test_a_backbone_on_record_is_opened_for_new_pictures_only(labelled, tmp_path, monkeypatch):
    X, _ = labelled
    opened: list[str] = []

    def counted(*arguments, **options):
        opened.append(arguments[0])
        return fl.open_backbone(*arguments, **options)

    monkeypatch.setattr("frostline.extractor.open_backbone", counted)
    extractor = FeatureExtractor(cache_dir=tmp_path)
    want = extractor.transform(X[:6])
    assert np.array_equal(extractor.transform(X[3:6]), want[3:])
    assert np.array_equal(extractor.transform(X[:6]), want)
    assert len(opened) == 1
    assert extractor.transform(X[:8]).shape == (8, 1280)
    assert len(opened) == 2
    weights = tmp_path / "weights.safetensors"
    save_file(fl.open_backbone("tf_efficientnet_lite0").body.state_dict(), weights)
    assert np.allclose(FeatureExtractor(weights=weights, cache_dir=tmp_path).transform(X[:6]), want, atol=1e-5)
    assert np.allclose(FeatureExtractor().transform(X[:6]), want, atol=1e-5)


def test_arrays_and_images_are_taken(labelled):
    from PIL import Image

    X, _ = labelled
    extractor = FeatureExtractor("tiny_net:build")
    opened = [Image.open(p).convert("RGB") for p in X[:4]]
    want = extractor.transform(X[:4])
    assert np.array_equal(extractor.transform(opened), want)
    assert np.array_equal(extractor.transform([np.asarray(i) for i in opened]), want)


def test_what_cannot_be_transformed_is_said(labelled, tmp_path):
    X, _ = labelled
    (tmp_path / "no.png").write_bytes(b"no picture")
    with pytest.raises(DecodeError, match=r"no\.png: is no image that can be read"):
        FeatureExtractor("tiny_net:build").transform([*X[:2], tmp_path / "no.png"])
    with pytest.raises(BackboneError):
        FeatureExtractor("timm:resnet_nothing").transform(X[:2])


def test_it_is_loaded_by_skops_where_its_type_is_trusted(labelled, tmp_path):
    skops = pytest.importorskip("skops.io")
    X, y = labelled
    pipeline = make_pipeline(FeatureExtractor("tiny_net:build"), SVC(random_state=0)).fit(X, y)
    skops.dump(pipeline, tmp_path / "p.skops")
    unknown = skops.get_untrusted_types(file=tmp_path / "p.skops")
    assert unknown == ["frostline.extractor.FeatureExtractor"]
    again = skops.load(tmp_path / "p.skops", trusted=unknown)
    assert again.predict(X).tolist() == pipeline.predict(X).tolist()

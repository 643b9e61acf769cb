"""What docs/ecosystem.md shows is run."""

from __future__ import annotations

import re
import tarfile

import pytest

from conftest import ROOT, make_images


@pytest.mark.slow
def test_every_block(tmp_path, monkeypatch):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("datasets")
    for split, seed in (("train", 0), ("val", 1)):
        make_images(tmp_path / "DATA" / split, {"ants": 6, "bees": 6}, seed)
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16, image_size=32, patch_size=8
    )
    transformers.AutoModelForImageClassification.from_config(config).save_pretrained(tmp_path / "vit")
    for shard in range(2):
        with tarfile.open(tmp_path / f"shards-{shard:03}.tar", "w") as tar:
            for label in ("ants", "bees"):
                (tmp_path / label).write_text(label)
                tar.add(tmp_path / "DATA" / "train" / label / f"{shard:03}.png", f"{label}{shard}.png")
                tar.add(tmp_path / label, f"{label}{shard}.cls")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs" / "ecosystem.md").read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 4
    given: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "docs/ecosystem.md", "exec"), given)
    assert given["events"][-1].audit.frozen_unchanged

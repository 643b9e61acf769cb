"""Label images with an exported ONNX file and its preprocess.json, where there is no torch: onnxruntime, numpy and Pillow do.

    python benchmarks/onnx_alone.py RUN/export-onnx FOLDER > labels.jsonl

Give it an export made with ``--preprocess inside``. One JSON object a line, as ``frostline predict --json`` prints.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


def picture(path: Path, settings: dict) -> np.ndarray:
    """``(3, H, W)`` uint8, as preprocess.json says."""
    image = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    (height, width), short = settings["crop"], settings["resize"]
    if settings["mode"] == "squash":
        size = (short * width // max(height, width), short * height // max(height, width))
    elif image.width <= image.height:
        size = (short, int(short * image.height / image.width))
    else:
        size = (int(short * image.width / image.height), short)
    image = image.resize(size, Image.Resampling[settings["interpolation"].upper()])
    left, top = round((image.width - width) / 2), round((image.height - height) / 2)
    return np.array(image.crop((left, top, left + width, top + height))).transpose(2, 0, 1)


def main() -> None:
    """Label every file of a folder."""
    export, folder = Path(sys.argv[1]), Path(sys.argv[2])
    about = json.loads((export / "preprocess.json").read_text())
    session = onnxruntime.InferenceSession(export / "model.onnx")
    labels = json.loads(session.get_modelmeta().custom_metadata_map["labels"])
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        fed = {about["input"]["name"]: picture(path, about["settings"])[None]}
        probabilities = session.run(["probabilities"], fed)[0][0]
        best = int(probabilities.argmax())
        print(json.dumps({"path": str(path), "label": labels[best], "probability": float(probabilities[best])}))


if __name__ == "__main__":
    main()

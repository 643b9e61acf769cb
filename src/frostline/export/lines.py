"""Lines of Python that load an export and label a picture with it, without frostline. ``<DIR>`` stands for its folder."""

from __future__ import annotations

import json
from collections.abc import Sequence

from frostline.backbone import Preprocess

FOLDER = "<DIR>"


def placed(lines: Sequence[str], folder: str) -> tuple[str, ...]:
    """The lines with the folder in its place, inside the quotes that are there.

    >>> placed(['load("<DIR>/model")'], 'a"b')
    ('load("a\\\\"b/model")',)
    """
    quoted = json.dumps(folder, ensure_ascii=False)[1:-1]
    return tuple(line.replace(FOLDER, quoted) for line in lines)


def onnx_lines() -> tuple[str, ...]:
    """Load the ONNX file, with onnxruntime alone."""
    return (
        "import json, onnxruntime",
        f'session = onnxruntime.InferenceSession("{FOLDER}/model.onnx")',
        "about = session.get_modelmeta().custom_metadata_map",
        'labels, preprocess = json.loads(about["labels"]), json.loads(about["preprocess"])',
    )


def torch_lines() -> tuple[str, ...]:
    """Load the program, with torch alone."""
    return (
        "import json, torch",
        'about = {"labels.json": "", "preprocess.json": ""}',
        f'program = torch.export.load("{FOLDER}/model.pt2", extra_files=about).module()',
        'labels, preprocess = json.loads(about["labels.json"]), json.loads(about["preprocess.json"])',
    )


def picture_lines(preprocess: Preprocess, *, normalised: bool) -> tuple[str, ...]:
    """``PICTURE.jpg`` as ``picture``, ``(1, 3, H, W)``, with Pillow and numpy: uint8 pixels, or normalised float32."""
    height, width = preprocess.crop
    short = preprocess.resize
    if preprocess.mode == "center":
        size = f"({short}, int({short} * h / w)) if w <= h else (int({short} * w / h), {short})"
    else:
        size = f"({short * width // max(height, width)}, {short * height // max(height, width)})"
    lines = (
        "import numpy",
        "from PIL import Image, ImageOps",
        'image = ImageOps.exif_transpose(Image.open("PICTURE.jpg")).convert("RGB")',
        "w, h = image.size",
        f"image = image.resize({size}, Image.Resampling.{preprocess.interpolation.upper()})",
        f"left, top = round((image.width - {width}) / 2), round((image.height - {height}) / 2)",
        f"picture = numpy.array(image.crop((left, top, left + {width}, top + {height}))).transpose(2, 0, 1)[None]",
    )
    if not normalised:
        return lines
    mean, std = (f"numpy.array({list(c)}).reshape(1, 3, 1, 1)" for c in (preprocess.mean, preprocess.std))
    return (*lines, f'picture = ((picture / 255 - {mean}) / {std}).astype("float32")')


def onnx_answer(name: str) -> tuple[str, ...]:
    """Label ``picture`` with the session."""
    return (
        f'logits, probabilities = session.run(["logits", "probabilities"], {{"{name}": picture}})',
        "print(labels[int(probabilities[0].argmax())], float(probabilities[0].max()))",
    )


def torch_answer() -> tuple[str, ...]:
    """Label ``picture`` with the program."""
    return (
        "with torch.no_grad():",
        "    logits, probabilities = program(torch.from_numpy(picture))",
        "print(labels[int(probabilities[0].argmax())], float(probabilities[0].max()))",
    )


def model_answer() -> tuple[str, ...]:
    """Label ``picture``, normalised, with a model of timm's, torchvision's or one's own."""
    return (
        "with torch.no_grad():",
        "    probabilities = model(torch.from_numpy(picture)).softmax(1)",
        f'labels = json.load(open("{FOLDER}/labels.json"))',
        "print(labels[int(probabilities[0].argmax())], float(probabilities[0].max()))",
    )

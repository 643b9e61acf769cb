"""Hostile and unusual image files, each with its declared verdict."""

import contextlib
import io
import struct
import sys
import threading
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from frostline import Preprocess
from frostline.data.crop import Crop
from frostline.data.decode import MAX_PIXELS, decode, read_image_bytes
from frostline.errors import DataError, DecodeError
from frostline.features.pixels import pixel_batches

NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8))
GRAY16 = Image.fromarray(np.array([[0, 0x1234, 0xFFFF, 255]], np.uint16))
FORMATS = ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM"]


def coded(image: Image.Image, form: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, pixels: bytes = b"", between: bytes = b"") -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + between + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")


def cut(data: bytes, share: float = 0.5) -> bytes:
    return data[: int(len(data) * share)]


def exif(turn: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = turn
    return tags


def bmp_claiming(width: int, height: int) -> bytes:
    data = bytearray(coded(NOISE, "BMP"))
    data[18:26] = struct.pack("<ii", width, height)
    return bytes(data)


def clear_png_entry() -> bytes:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    return coded(image, "PNG", transparency=0)


REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "zero bytes": (lambda: b"", "empty file"),
    "one byte": (lambda: b"\xff", "no image of a known format"),
    "text": (lambda: b"these are not pixels\n" * 40, "no image of a known format"),
    "html": (lambda: b"<html><script>alert(1)</script></html>", "no image of a known format"),
    "svg": (lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>", "no image of a known format"),
    "pickle": (lambda: b"\x80\x04cos\nsystem\n(S'true'\ntR.", "no image of a known format"),
    "postscript": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no image of a known format"),
    "zip": (lambda: b"PK\x03\x04" + bytes(100), "no image of a known format"),
    "zeros": (lambda: bytes(4096), "no image of a known format"),
    "ICO, not allowed": (lambda: coded(NOISE, "ICO"), "no image of a known format"),
    "TGA, not allowed": (lambda: coded(NOISE, "TGA"), "no image of a known format"),
    "PCX, not allowed": (lambda: coded(NOISE, "PCX"), "no image of a known format"),
    "JPEG magic only": (lambda: b"\xff\xd8\xff\xe0", ""),
    "PNG magic only": (lambda: b"\x89PNG\r\n\x1a\n", ""),
    **{f"half of a {form}": (lambda form=form: cut(coded(NOISE, form)), "") for form in FORMATS},
    **{f"nine tenths of a {form}": (lambda form=form: cut(coded(NOISE, form), 0.9), "") for form in FORMATS},
    "JPEG, last bytes gone": (lambda: coded(NOISE, "JPEG")[:-20], "truncated file"),
    "huge dimensions": (lambda: png(60_000, 60_000), "more"),
    "just over the limit": (lambda: png(MAX_PIXELS + 1, 1), "more than the limit"),
    "dimensions of a bomb": (lambda: png(20_000, 20_000, bytes(10_000)), "more"),
    "BMP that claims a lot": (lambda: bmp_claiming(30_000, 30_000), "more"),
    "no width": (lambda: png(0, 5), ""),
    "PNG with a broken checksum": (lambda: coded(NOISE, "PNG").replace(b"IDAT", b"IDAU", 1), ""),
    "PNG pixels that are no zlib": (lambda: png(4, 4).replace(zlib.compress(b""), b"notazlib"), ""),
    "PNG text bomb": (lambda: png(1, 1, bytes(4), chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(90_000_000)))), "damaged"),
    "floating-point TIFF": (lambda: coded(Image.new("F", (4, 4)), "TIFF"), "floating-point pixels"),
    "floating-point PFM": (lambda: coded(Image.new("F", (4, 4)), "PPM"), "floating-point pixels"),
    "32-bit TIFF": (lambda: coded(Image.new("I", (4, 4), 1 << 20), "TIFF"), "beyond 16 bits"),
    "negative TIFF": (lambda: coded(Image.new("I", (4, 4), -5), "TIFF"), "beyond 16 bits"),
    "TIFF whose directory is itself": (lambda: b"II*\0" + struct.pack("<IHI", 8, 0, 8), ""),
}

READ: dict[str, tuple[Callable[[], bytes], tuple[str, ...]]] = {
    **{form: (lambda form=form: coded(NOISE, form), ()) for form in ["JPEG", "PNG", "BMP", "TIFF", "WEBP", "PPM"]},
    "black and white": (lambda: coded(NOISE.convert("1"), "PNG"), ("grayscale to RGB",)),
    "grayscale": (lambda: coded(NOISE.convert("L"), "JPEG"), ("grayscale to RGB",)),
    "palette": (lambda: coded(NOISE.convert("P"), "PNG"), ("palette to RGB",)),
    "GIF": (lambda: coded(NOISE, "GIF"), ("palette to RGB",)),
    "gray and alpha": (lambda: coded(NOISE.convert("LA"), "PNG"), ("grayscale to RGB", "transparency on white")),
    "RGBA WebP without a clear pixel": (lambda: coded(NOISE.convert("RGBA"), "WEBP"), ()),
    "RGBA PNG": (lambda: coded(NOISE.convert("RGBA"), "PNG"), ("transparency on white",)),
    "palette with alpha": (lambda: coded(Image.new("PA", (4, 4)), "TIFF"), ("palette to RGB", "transparency on white")),
    "palette with a clear entry": (clear_png_entry, ("palette to RGB", "transparency on white")),
    "RGB with a clear colour": (lambda: coded(NOISE, "PNG", transparency=(1, 2, 3)), ("transparency on white",)),
    "CMYK JPEG": (lambda: coded(NOISE.convert("CMYK"), "JPEG"), ("CMYK to RGB",)),
    "CMYK TIFF": (lambda: coded(NOISE.convert("CMYK"), "TIFF"), ("CMYK to RGB",)),
    "YCbCr TIFF": (lambda: coded(NOISE.convert("YCbCr"), "TIFF"), ("YCbCr to RGB",)),
    "LAB TIFF": (lambda: coded(Image.new("LAB", (4, 4)), "TIFF"), ("LAB to RGB",)),
    "16-bit PNG": (lambda: coded(GRAY16, "PNG"), ("16-bit to 8-bit", "grayscale to RGB")),
    "16-bit TIFF": (lambda: coded(GRAY16, "TIFF"), ("16-bit to 8-bit", "grayscale to RGB")),
    "16-bit PGM": (lambda: coded(GRAY16, "PPM"), ("16-bit to 8-bit", "grayscale to RGB")),
    "animated GIF": (
        lambda: coded(NOISE, "GIF", save_all=True, append_images=[NOISE.rotate(90)]),
        ("palette to RGB", "first of 2 frames"),
    ),
    "animated WebP": (lambda: coded(NOISE, "WEBP", save_all=True, append_images=[NOISE.rotate(90)]), ("first of 2 frames",)),
    "animated PNG": (lambda: coded(NOISE, "PNG", save_all=True, append_images=[NOISE.rotate(90)]), ("first of 2 frames",)),
    "TIFF pages": (lambda: coded(NOISE, "TIFF", save_all=True, append_images=[NOISE] * 2), ("first of 3 frames",)),
    "MPO": (lambda: coded(NOISE, "MPO", save_all=True, append_images=[NOISE]), ("first of 2 frames",)),
    "JPEG with rubbish behind": (lambda: coded(NOISE, "JPEG") + bytes(1000), ()),
    "broken EXIF": (lambda: coded(NOISE, "JPEG", exif=b"Exif\0\0rubbish" * 3), ()),
    "EXIF that points outside": (lambda: coded(NOISE, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f"), ()),
    "EXIF orientation 99": (lambda: coded(NOISE, "JPEG", exif=exif(99)), ()),
    "EXIF upright": (lambda: coded(NOISE, "JPEG", exif=exif(1)), ()),
    "a single pixel": (lambda: coded(Image.new("RGB", (1, 1)), "PNG"), ()),
    "very flat": (lambda: coded(Image.new("RGB", (5000, 1)), "PNG"), ()),
}


def test_there_are_at_least_forty_hostile_files():
    assert len(REFUSED) >= 40
    assert len(READ) >= 30


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning", "ignore::UserWarning")
def test_refused(name: str):
    make, reason = REFUSED[name]
    with pytest.raises(DecodeError) as caught:
        decode(make())
    line = str(caught.value)
    assert reason in line
    assert 0 < len(line) < 160
    assert "0x" not in line  # an address of an object would make two runs differ


@pytest.mark.parametrize("name", READ)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_read(name: str):
    make, conversions = READ[name]
    decoded = decode(make())
    assert decoded.image.mode == "RGB"
    assert decoded.conversions == conversions


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("turn", range(2, 9))
def test_exif_orientation_is_applied(turn: int, form: str):
    """What is stored is the upright picture turned the other way, so decoding gives the upright one back."""
    upright = Image.new("RGB", (32, 16), "blue")
    upright.paste("red", (0, 0, 16, 8))
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}[turn]  # Image.Transpose members
    options = {"lossless": True} if form == "WEBP" else {"quality": 95} if form == "JPEG" else {}
    decoded = decode(coded(upright.transpose(Image.Transpose(undo)), form, exif=exif(turn), **options))
    assert decoded.image.size == (32, 16)
    assert "EXIF orientation applied" in decoded.conversions
    difference = np.abs(np.asarray(decoded.image).astype(int) - np.asarray(upright))
    assert difference.mean() < 5


@pytest.mark.parametrize("form", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_keep_the_upper_eight(form: str):
    assert np.asarray(decode(coded(GRAY16, form)).image)[0, :, 0].tolist() == [0, 0x12, 0xFF, 0]


def test_transparent_pixels_are_white():
    clear = Image.new("RGBA", (2, 1), (255, 0, 0, 0))
    clear.putpixel((1, 0), (0, 0, 255, 255))
    for data in (coded(clear, "PNG"), clear_png_entry()):
        assert np.asarray(decode(data).image).tolist() == [[[255, 255, 255], [0, 0, 255]]]


def test_the_first_frame_is_taken():
    pictures = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "green")]
    for form in ("GIF", "TIFF", "PNG"):
        data = coded(pictures[0], form, save_all=True, append_images=pictures[1:])
        assert decode(data).image.getpixel((0, 0)) == (255, 0, 0)


def test_content_decides_not_the_name(tmp_path: Path):
    (tmp_path / "picture.jpg").write_bytes(coded(NOISE, "PNG"))
    decoded = decode(read_image_bytes(tmp_path / "picture.jpg"))
    assert np.array_equal(np.asarray(decoded.image), np.asarray(NOISE))


def test_nothing_global_is_changed():
    limit, lenient = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
    with pytest.raises(DecodeError):
        decode(cut(coded(NOISE, "JPEG")))
    assert limit == Image.MAX_IMAGE_PIXELS
    assert lenient == ImageFile.LOAD_TRUNCATED_IMAGES


def test_threads_see_the_same_pixels():
    data = coded(NOISE, "JPEG")
    want = decode(data).image.tobytes()
    gate = threading.Barrier(4)

    def one(_: int) -> bytes:
        gate.wait()
        return decode(data).image.tobytes()

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(one, range(4))) == {want}


@pytest.mark.parametrize("name", ["absent.jpg", "folder", "nul\0name"])
def test_a_file_that_cannot_be_read(tmp_path: Path, name: str):
    (tmp_path / "folder").mkdir()
    with pytest.raises(DecodeError, match="cannot be read: ") as caught:
        read_image_bytes(tmp_path / name)
    assert str(caught.value).isprintable()


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("form", FORMATS)
def test_random_damage_is_an_error_or_a_picture(form: str):
    random = np.random.default_rng(3)
    good = np.frombuffer(coded(NOISE, form), np.uint8)
    for _ in range(60):
        bad = good.copy()
        bad[random.integers(0, len(bad), 3)] = random.integers(0, 256, 3)
        with contextlib.suppress(DecodeError):
            assert decode(bad.tobytes()).image.mode == "RGB"


def test_a_picture_that_would_take_gigabytes_to_resize_is_refused_and_others_are_not(tmp_path: Path):
    """97 bytes of 3000 by 2 pixels are 384,000 by 256 once the short side is resized."""
    flat = tmp_path / "flat.png"
    flat.write_bytes(coded(Image.new("RGB", (3000, 2)), "PNG"))
    [[found]] = pixel_batches([flat], Preprocess((224, 224), 256), [1])
    assert isinstance(found, DecodeError)
    assert "3000 x 2 pixels, too narrow" in str(found)
    banner = Crop((224, 224), 256).of(Image.new("RGB", (2000, 20)))
    assert banner.shape == (224, 224, 3)


def test_want_of_memory_is_no_fault_of_the_file(monkeypatch: pytest.MonkeyPatch):
    def starved(data: bytes):
        raise MemoryError

    monkeypatch.setattr(sys.modules["frostline.data.decode"], "_decode", starved)
    with pytest.raises(DataError, match="not enough memory"):
        decode(coded(NOISE, "PNG"))

"""Pixels: any image decodes to what a person sees; views are exact, random ones depend on their three numbers alone."""

import functools
import io
import json
import logging
import os
import pickle
import random
import re
import struct
import threading
import time
import warnings
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
import torch
import torchvision.transforms
import yaml
from PIL import Image, ImageCms, ImageOps
from torch import Tensor, nn
from torchvision.transforms import v2

from tlx.augmentations import ShearZoom
from tlx.config.hydra_session import CONF
from tlx.config.instantiate import component
from tlx.core.errors import RequestError
from tlx.datasets import augmentation, image_decoding, library_warnings
from tlx.datasets.augmentation import _torch_alone, random_view
from tlx.datasets.image_decoding import LARGE, MAX_BYTES, MAX_PIXELS, UnreadableImage, decode, pixels_of
from tlx.datasets.image_sources import FileBytes
from tlx.datasets.images import Images
from tlx.datasets.preprocessing import Normalize, Preprocessing

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def picture(height: int = 20, width: int = 30, seed: int = 0) -> np.ndarray:
    """Smooth colours, so that a lossy format or a resize stays near them."""
    y, x = np.mgrid[0:height, 0:width]
    phase = np.random.default_rng(seed).uniform(0, 6, 3)
    waves = [128 + 100 * np.sin(0.1 * x + 0.13 * y + p) for p in phase]
    return np.stack(waves, axis=-1).astype(np.uint8)


def encoded(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def tensor(height: int = 60, width: int = 90) -> Tensor:
    return torch.from_numpy(picture(height, width)).permute(2, 0, 1)


# ---------------------------------------------------------------- decoding


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "PPM", "GIF", "WEBP"])
def test_a_lossless_file_decodes_to_its_pixels(format: str, tmp_path: Path) -> None:
    pixels = picture() // 64 * 64  # few enough colours for GIF's palette
    options = {"lossless": True} if format == "WEBP" else {}
    file = tmp_path / "picture"
    file.write_bytes(encoded(Image.fromarray(pixels), format, **options))
    for data in (file, file.read_bytes()):
        found = decode(data)
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, pixels)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK", "YCbCr"])
@pytest.mark.parametrize("size", [(60, 90), (61, 83), (8, 8), (1, 1), (3, 200)])
def test_a_jpeg_has_the_very_pixels_that_pillow_finds(mode: str, size: tuple[int, int], tmp_path: Path) -> None:
    image = Image.fromarray(picture(*size)).convert(mode)
    forms: list[dict[str, Any]] = [
        {"quality": 90, "subsampling": 0},
        {"quality": 75, "subsampling": 1},
        {"quality": 40, "subsampling": 2},
        {"quality": 75, "progressive": True},
        {"quality": 100, "optimize": True, "restart_marker_blocks": 2},
    ]
    if mode == "RGB":
        forms += [{"keep_rgb": True}, {"format": "MPO", "save_all": True, "append_images": [image.rotate(180)]}]
    for form in forms:
        data = encoded(image, **{"format": "JPEG", **form})
        file = tmp_path / "picture.jpg"
        file.write_bytes(data)
        with Image.open(io.BytesIO(data)) as opened:
            expected = np.asarray(opened.convert("RGB"))
        for given in (data, file):
            np.testing.assert_array_equal(decode(given), expected, err_msg=str(form))


def test_a_jpeg_with_a_flaw_that_pillow_reads_over_is_read_by_pillow() -> None:
    data = encoded(Image.fromarray(picture()), "JPEG")
    start = data.index(b"\xff\xda")
    flawed = data[:start] + b"\0\0" + data[start:]  # bytes that belong nowhere: a warning of the faster decoder
    with pytest.raises(ValueError, match="extraneous bytes"):
        simplejpeg.decode_jpeg(flawed)
    np.testing.assert_array_equal(decode(flawed), decode(data))


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr"])
def test_every_mode_becomes_the_rgb_that_pillow_shows(mode: str) -> None:
    image = Image.fromarray(picture()).convert(mode)
    data = encoded(image, "TIFF")
    try:
        Image.open(io.BytesIO(data)).load()
    except OSError:  # YCbCr before Pillow 13
        pytest.skip("this Pillow does not read what it has written in this mode")
    np.testing.assert_array_equal(decode(data), np.asarray(image.convert("RGB")))


def test_grey_of_sixteen_bits_is_scaled_not_clipped() -> None:
    levels = np.linspace(0, 65535, 256, dtype=np.uint16).reshape(16, 16)
    found = decode(encoded(Image.fromarray(levels)))
    np.testing.assert_array_equal(found[..., 0], np.arange(256).reshape(16, 16))
    assert (found == found[..., :1]).all()


@pytest.mark.parametrize("scale", [1.0, 255.0])
def test_grey_in_floats_keeps_its_range(scale: float) -> None:
    values = np.linspace(0, scale, 100, dtype=np.float32).reshape(10, 10)
    found = decode(encoded(Image.fromarray(values), "TIFF"))
    assert (int(found.min()), int(found.max())) == (0, 255)


def test_lab_becomes_srgb() -> None:
    pixels = picture()
    lab = ImageCms.profileToProfile(
        Image.fromarray(pixels), ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    assert lab is not None
    assert np.abs(decode(encoded(lab, "TIFF")).astype(int) - pixels).mean() < 2  # two roundings to 8 bits


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_lies_over_white(mode: str) -> None:
    image = Image.new(mode, (4, 4), 0)
    assert (decode(encoded(image)) == 255).all()
    image.putalpha(255)
    assert (decode(encoded(image)) == 0).all()


def test_a_transparent_colour_of_a_palette_lies_over_white() -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 9, 9, 9])
    assert (decode(encoded(image, transparency=1)) == 255).all()
    assert (decode(encoded(image, transparency=0)) == 9).all()
    # An alpha value for each entry of the palette is a warning in Pillow's own conversion.
    assert (decode(encoded(image, transparency=bytes([255, 0]))) == 255).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["PNG", "JPEG"])
def test_exif_orientation_is_applied(orientation: int, format: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(picture()), format, exif=exif)
    with Image.open(io.BytesIO(data)) as image:
        np.testing.assert_array_equal(decode(data), np.asarray(ImageOps.exif_transpose(image)))


@pytest.mark.parametrize("value", [0, 9, 77])
def test_an_orientation_that_does_not_exist_is_none(value: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = value
    np.testing.assert_array_equal(decode(encoded(Image.fromarray(picture()), exif=exif)), picture())


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")  # as the product does; pytest sets the filters anew for each test
def test_damaged_exif_does_not_lose_the_picture() -> None:
    data = encoded(Image.fromarray(picture()), "JPEG")
    broken = data[:2] + b"\xff\xe1\x00\x12Exif\x00\x00II*\x00\xff\xff\x00\x00\xff\xff" + data[2:]
    np.testing.assert_array_equal(decode(broken), decode(data))


def test_an_animation_is_its_first_frame() -> None:
    frames = [Image.new("RGB", (5, 5), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert (decode(data) == (255, 0, 0)).all()


@pytest.mark.parametrize("format", ["JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF"])
def test_a_truncated_file_is_unreadable_wherever_it_ends(format: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), format)
    for end in np.linspace(1, len(data) * 0.9, 25).astype(int):
        with pytest.raises(UnreadableImage) as caught:
            decode(data[:end])
        assert "\n" not in str(caught.value)
        assert str(caught.value)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "the file is empty"),
        (b"hello, I am a text", "not an image, or of an unknown format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image, or of an unknown format"),
    ],
)
def test_what_is_no_image_is_unreadable_with_its_reason(data: bytes, reason: str, tmp_path: Path) -> None:
    file = tmp_path / "image.jpg"
    file.write_bytes(data)
    for given in (data, file):
        with pytest.raises(UnreadableImage, match=reason):
            decode(given)


def test_a_missing_file_is_unreadable(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImage, match="no such file or directory"):
        decode(tmp_path / "gone.jpg")


def test_a_pipe_or_a_device_is_no_file_and_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    for path in (tmp_path / "pipe.jpg", Path("/dev/zero"), tmp_path):
        with pytest.raises(UnreadableImage, match=r"^not a file$"):
            decode(path)


def test_large_images_are_decoded_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    at_once, most = 0, 0
    whole = image_decoding._rgb

    def counted(image: Image.Image) -> Image.Image:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        time.sleep(0.02)  # long enough for another thread to come
        at_once -= 1
        return whole(image)

    monkeypatch.setattr(image_decoding, "_rgb", counted)
    data = encoded(Image.fromarray(picture()))
    found = []
    for large in (0, LARGE):
        most = 0
        monkeypatch.setattr(image_decoding, "LARGE", large)
        with ThreadPoolExecutor(4) as threads:
            assert all((pixels == picture()).all() for pixels in threads.map(decode, [data] * 8))
        found.append(most)
    assert found[0] == 1 < found[1]


def test_one_of_pillows_images_has_the_pixels_and_the_errors_of_its_file() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for mode in ("RGB", "L", "P", "CMYK", "I;16"):
        image = Image.fromarray(picture()[..., 0].astype(np.uint16)) if mode == "I;16" else None
        data = encoded(image or Image.fromarray(picture()).convert(mode), "TIFF", exif=exif)
        found = pixels_of(Image.open(io.BytesIO(data)))
        np.testing.assert_array_equal(found, decode(data))
        assert found.shape == (30, 20, 3)
    cut = encoded(Image.fromarray(picture()), "PNG")[:-60]
    with pytest.raises(UnreadableImage, match="truncated"):
        pixels_of(Image.open(io.BytesIO(cut)))
    with pytest.raises(UnreadableImage, match="20000 x 6000 pixels are more than 100,000,000"):
        pixels_of(Image.new("1", (20_000, 6_000)))
    closed = Image.open(io.BytesIO(data))
    closed.close()
    with pytest.raises(UnreadableImage):
        pixels_of(closed)


def bomb(side: int) -> bytes:
    """A PNG that says it has side x side pixels, and has none."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [10_001, 12_000, 60_000])
def test_a_decompression_bomb_is_refused_before_it_is_unpacked(side: int) -> None:
    assert side**2 > MAX_PIXELS
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(UnreadableImage, match=r"pixels are more than|exceeds limit"):
            decode(bomb(side))


@pytest.fixture
def limits() -> Iterator[None]:
    before = Image.MAX_IMAGE_PIXELS
    yield
    image_decoding.allow(MAX_PIXELS)
    Image.MAX_IMAGE_PIXELS = before


@pytest.mark.usefixtures("limits")
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_larger_photograph_is_read_where_a_key_allows_it() -> None:
    with pytest.raises(UnreadableImage) as refused:
        decode(encoded(Image.new("1", (12_000, 9_000))))
    advice = "runtime.max_pixels=108000000 takes them (predict: --max-pixels 108000000)"
    assert str(refused.value) == f"12000 x 9000 pixels are more than 100,000,000; {advice}"
    data = encoded(Image.fromarray(picture(30, 20)))
    image_decoding.allow(599)
    with pytest.raises(UnreadableImage, match=r"20 x 30 pixels are more than 599; runtime\.max_pixels=600"):
        decode(data)
    with pytest.raises(UnreadableImage, match=r"3,600,000,000 pixels are more than 599; runtime\.max_pixels=36"):
        decode(bomb(60_000))  # beyond Pillow's own limit
    image_decoding.allow(600)
    assert decode(data).shape == (30, 20, 3)
    image_decoding.allow(60_000**2)
    with Image.open(io.BytesIO(bomb(60_000))) as opened:
        assert opened.size == (60_000, 60_000)


@pytest.mark.usefixtures("limits")
def test_the_limit_goes_with_images_to_other_processes(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(encoded(Image.fromarray(picture())))
    images = Images(["1.png"], [0], FileBytes((str(tmp_path / "1.png"),)))
    image_decoding.allow(1_000)
    sent = pickle.dumps(images)
    image_decoding.allow(10)
    assert pickle.loads(sent).decode(0).shape == (20, 30, 3)
    assert image_decoding.allowed() == 1_000


# ---------------------------------------------------------------- what libraries say


def packed(compression: str) -> bytes:
    """A TIFF whose packed pixels are damaged; its header is whole."""
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    image = Image.fromarray(pixels).convert("1" if compression == "group4" else "RGB")
    data = bytearray(encoded(image, "TIFF", compression=compression))
    for place in range(40, len(data) - 300, 97):
        data[place] ^= 0xFF
    return bytes(data)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate"])
def test_why_a_damaged_tiff_cannot_be_read_is_said_in_words_and_by_nobody_else(
    compression: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UnreadableImage, match=r"^its data is damaged \(.*[a-z]{4,}.*\)$"):
        decode(packed(compression))
    assert capfd.readouterr() == ("", "")


def test_what_libtiff_reads_over_is_one_line_that_names_the_file(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    files = [tmp_path / f"{i}.tif" for i in range(2)]
    for file in files:
        file.write_bytes(packed("group4"))
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(decode, files * 4))
    assert capfd.readouterr() == ("", "")
    said = sorted(record.message for record in caplog.records)
    assert [line.partition(": may be damaged: ")[0] for line in said] == [str(file) for file in files]
    assert all(re.search(r"Bad code word .* \(and \d+ more\)$", line) for line in said)


def test_many_threads_that_begin_at_once_listen_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, barrier = [], threading.Barrier(8)

    @functools.cache
    def slow() -> None:
        calls.append(time.sleep(0.01))

    def first() -> None:
        barrier.wait()
        with library_warnings.collected():
            pass

    monkeypatch.setattr(library_warnings, "_listen", slow)
    threads = [threading.Thread(target=first) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1


def test_what_pillow_logs_is_a_line_of_ours(capfd: pytest.CaptureFixture[str]) -> None:
    with library_warnings.collected() as found:
        logging.getLogger("PIL.TiffImagePlugin").error("More samples\nthan %d", 4)
        with library_warnings.collected() as inner:
            pass
    assert (found, inner) == (["More samples than 4"], [])
    logging.getLogger("PIL.TiffImagePlugin").warning("from elsewhere")
    assert capfd.readouterr() == ("", "")


# ---------------------------------------------------------------- the evaluation view


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "nearest"])
@pytest.mark.parametrize("size", [(60, 90), (90, 60), (64, 64), (20, 31), (400, 33)])
def test_the_view_is_pillows_resize_and_centre_crop(interpolation: str, size: tuple[int, int]) -> None:
    preprocessing = Preprocessing(56, 64, 56, *IMAGENET, interpolation)
    view = preprocessing.view(tensor(*size))
    assert torch.equal(preprocessing.of(picture(*size)), view)
    assert view.shape == (3, 56, 56)
    assert view.dtype == torch.uint8
    height, width = size
    short = min(size)
    pillow = Image.fromarray(picture(*size)).resize(
        (int(64 * width / short), int(64 * height / short)), Image.Resampling[interpolation.upper()]
    )
    left, top = round((pillow.width - 56) / 2.0), round((pillow.height - 56) / 2.0)
    expected = np.asarray(pillow.crop((left, top, left + 56, top + 56))).astype(int)
    difference = np.abs(view.permute(1, 2, 0).numpy() - expected)
    assert difference.max() <= (1 if interpolation != "nearest" else 12)


def test_squash_brings_both_sides_to_the_input_size() -> None:
    preprocessing = Preprocessing(32, None, None, (0.0,) * 3, (1.0,) * 3, "bilinear")
    assert preprocessing.view(tensor(20, 70)).shape == (3, 32, 32)


@pytest.mark.parametrize(("height", "width"), [(60, 90), (90, 60), (64, 64), (3, 400), (400, 3), (1, 1), (61, 83)])
@pytest.mark.parametrize("size", [32, 33])
def test_pad_shows_the_whole_picture_between_borders_that_the_network_sees_as_zeros(
    height: int, width: int, size: int
) -> None:
    mean, std = (0.5, 0.25, 0.1), (0.2, 0.2, 0.2)
    image = torch.from_numpy(picture(height, width)).permute(2, 0, 1)
    made = Preprocessing(size, None, None, mean, std, "bilinear", pad=True).view(image)
    assert made.shape == (3, size, size)
    assert made.dtype == torch.uint8
    long = max(height, width)
    h, w = (max(round(side * size / long), 1) for side in (height, width))
    top, left = (size - h) // 2, (size - w) // 2
    inside = made[:, top : top + h, left : left + w]
    torch.testing.assert_close(inside, v2.functional.resize(image, [h, w], antialias=True))
    border = torch.ones(size, size, dtype=torch.bool)
    border[top : top + h, left : left + w] = False
    assert Normalize(mean, std)(made[None])[0][:, border].abs().le(0.5 / 255 / 0.2 + 1e-6).all()


def test_pad_is_part_of_what_is_saved_and_only_where_it_is_used() -> None:
    plain = Preprocessing(32, None, None, *IMAGENET)
    padded = Preprocessing(32, None, None, *IMAGENET, pad=True)
    assert "pad" not in plain.to_dict()
    assert Preprocessing.from_dict(json.loads(json.dumps(padded.to_dict()))) == padded


def test_no_crop_takes_square_images_and_refuses_others() -> None:
    preprocessing = Preprocessing(32, 32, None, *IMAGENET)
    assert preprocessing.view(tensor(50, 50)).shape == (3, 32, 32)
    with pytest.raises(RequestError, match=r"backbone\.crop=32, backbone\.resize=squash or"):
        preprocessing.view(tensor(50, 70))


def test_preprocessing_survives_json() -> None:
    for resize, crop in ((256, 224), (None, None), (224, None)):
        preprocessing = Preprocessing(224, resize, crop, *IMAGENET, "bicubic")
        assert Preprocessing.from_dict(json.loads(json.dumps(preprocessing.to_dict()))) == preprocessing


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"input_size": 0}, r"backbone\.input_size=0: must be at least 1"),
        ({"interpolation": "bicubik"}, r"backbone\.interpolation=bicubik: .*did you mean 'bicubic'"),
        ({"mean": (0.5,)}, r"backbone\.mean=\[0\.5\]: needs three values"),
        ({"std": (1.0, 0.0, 1.0)}, r"backbone\.std=\[1\.0, 0\.0, 1\.0\]: every value must be above 0"),
        ({"resize": None}, r"backbone\.crop=224: resize=squash takes no crop"),
        ({"resize": 200}, r"backbone\.crop=224: must not be above backbone\.resize=200"),
        ({"crop": 200}, r"backbone\.crop=200: must be backbone\.input_size=224"),
        ({"crop": None}, r"backbone\.resize=256 without a crop: must be backbone\.input_size=224, squash or pad"),
    ],
)
def test_a_contradiction_says_what_would_be_right(change: dict[str, Any], message: str) -> None:
    good = {"input_size": 224, "resize": 256, "crop": 224, "mean": IMAGENET[0], "std": IMAGENET[1]}
    with pytest.raises(RequestError, match=message):
        Preprocessing(**{**good, **change})


# ---------------------------------------------------------------- normalisation


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_normalize_is_torchvisions(dtype: torch.dtype) -> None:
    x = torch.randint(0, 256, (2, 3, 8, 8)).to(dtype)
    before = x.clone()
    expected = v2.functional.normalize(x.float() / 255, *map(list, IMAGENET))
    torch.testing.assert_close(Normalize(*IMAGENET)(x), expected, rtol=0, atol=1e-6)
    assert torch.equal(x, before)


def test_normalize_adds_no_key_keeps_the_layout_and_moves_with_the_network() -> None:
    network = nn.Sequential(Normalize(*IMAGENET), nn.Conv2d(3, 4, 1))
    assert set(network.state_dict()) == {"1.weight", "1.bias"}
    x = torch.zeros(2, 3, 8, 8, dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
    assert network[0](x).is_contiguous(memory_format=torch.channels_last)
    assert network.to("meta")[0].mean.device.type == "meta"


# ---------------------------------------------------------------- random views

RANDOM: dict[str, Callable[[], Callable[[Tensor], Tensor]]] = {
    "flip": lambda: v2.RandomHorizontalFlip(),
    "crop": lambda: v2.RandomResizedCrop(40),
    "rotation": lambda: v2.RandomRotation([-15.0, 15.0]),
    "affine": lambda: v2.RandomAffine(10, (0.1, 0.1), (0.8, 1.2), 5),
    "perspective": lambda: v2.RandomPerspective(p=1.0),
    "elastic": lambda: v2.ElasticTransform(),
    "colour": lambda: v2.ColorJitter(0.3, 0.3, 0.3, 0.1),
    "erasing": lambda: v2.RandomErasing(p=1.0),
    "blur": lambda: v2.GaussianBlur(5, (0.1, 3.0)),
    "trivial": lambda: v2.TrivialAugmentWide(),
    "rand": lambda: v2.RandAugment(),
    "auto": lambda: v2.AutoAugment(),
    "augmix": lambda: v2.AugMix(),
    "apply": lambda: v2.RandomApply([v2.RandomRotation([-15.0, 15.0])], p=0.9),
    "choice": lambda: v2.RandomChoice([v2.RandomRotation([-15.0, 15.0]), v2.RandomVerticalFlip()]),
    "noise": lambda: v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.GaussianNoise()]),
    "shear_zoom": lambda: ShearZoom(0.2, [0.8, 1.2]),
}


@pytest.mark.parametrize("name", sorted(RANDOM))
def test_a_random_view_comes_from_seed_epoch_and_index_alone(name: str) -> None:
    image, transforms = tensor(), [RANDOM[name]()]
    state = torch.get_rng_state()
    views = {key: random_view(image, transforms, seed=key[0], epoch=key[1], index=key[2]) for key in KEYS}
    assert torch.equal(torch.get_rng_state(), state), "the global generator was moved"
    torch.manual_seed(99)
    for key in reversed(KEYS):
        again = random_view(image, transforms, seed=key[0], epoch=key[1], index=key[2])
        assert torch.equal(again, views[key])
    torch.set_rng_state(state)
    assert any(v.shape != views[KEYS[0]].shape or not torch.equal(v, views[KEYS[0]]) for v in views.values())


KEYS = [(seed, epoch, index) for seed in (0, 1) for epoch in (1, 2) for index in (0, 1, 2)]


@pytest.mark.parametrize("part", [0, 1, 2])
def test_seed_epoch_and_index_each_change_the_draw(part: int) -> None:
    image, crop = tensor(), [v2.RandomResizedCrop(40)]
    keys = [[5, 5, 5] for _ in range(6)]
    for value, key in enumerate(keys):
        key[part] = value
    views = {random_view(image, crop, seed=s, epoch=e, index=i).numpy().tobytes() for s, e, i in keys}
    assert len(views) == 6


class Shifted:
    """A transform of a user's own, that draws from a generator which all threads share."""

    def __init__(self, source: str) -> None:
        self.draw: Callable[[], float] = {
            "numpy": lambda: float(np.random.randint(0, 1 << 30)),
            "python": lambda: float(random.randrange(1 << 30)),
            "torch": lambda: float(torch.randint(0, 1 << 30, ())),
        }[source]

    def __call__(self, image: Tensor) -> Tensor:
        first = self.draw()
        time.sleep(0.0005)  # another thread has its turn
        return torch.tensor([first, self.draw()])


@pytest.mark.parametrize("within", ["alone", "v2.Compose", "v2.RandomApply", "torchvision.transforms.Compose"])
@pytest.mark.parametrize("source", ["numpy", "python", "torch"])
def test_draws_from_numpy_and_python_come_from_seed_epoch_and_index_in_any_thread(source: str, within: str) -> None:
    own: Any = Shifted(source)
    if within == "v2.Compose":
        own = v2.Compose([own])
    elif within == "v2.RandomApply":
        own = v2.RandomApply([own], p=1.0)
    elif within != "alone":
        own = torchvision.transforms.Compose([own])
    keys = [(seed, epoch, index) for seed in (0, 1) for epoch in (0, 1) for index in range(6)]

    def drawn(key: tuple[int, int, int]) -> list[float]:
        found: list[float] = random_view(tensor(), [own], seed=key[0], epoch=key[1], index=key[2]).tolist()
        return found

    expected = {key: drawn(key) for key in keys}
    assert len({tuple(draws) for draws in expected.values()}) == len(keys)
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(drawn, reversed(keys))) == [expected[key] for key in reversed(keys)]
    python, numpy, ours = random.getstate(), np.random.get_state(legacy=False), torch.get_rng_state()
    drawn(keys[0])
    assert random.getstate() == python
    np.testing.assert_equal(np.random.get_state(legacy=False), numpy)
    assert torch.equal(torch.get_rng_state(), ours)


def test_transforms_of_torchvision_need_not_take_turns() -> None:
    for made in RANDOM.values():
        assert _torch_alone(made())
    assert _torch_alone(v2.RandomApply([v2.ColorJitter(0.1)]))
    for shared in (
        Shifted("torch"),
        v2.Compose([Shifted("torch")]),
        v2.RandomChoice([v2.Identity(), v2.Compose([torchvision.transforms.RandomChoice([torch.nn.Identity()])])]),
        v2.Lambda(lambda x: x),
        functools.partial(v2.functional.hflip),
    ):
        assert not _torch_alone(shared)


def test_random_views_in_threads_neither_disturb_each_other_nor_a_training_network() -> None:
    image, crop = tensor(), [v2.RandomResizedCrop(40), v2.ColorJitter(0.3)]
    expected = [random_view(image, crop, seed=0, epoch=0, index=i) for i in range(40)]
    torch.manual_seed(3)
    dropout = [torch.nn.functional.dropout(torch.ones(50)) for _ in range(200)]
    found: dict[int, Tensor] = {}

    def work(numbers: range) -> None:
        for i in numbers:
            found[i] = random_view(image, crop, seed=0, epoch=0, index=i)

    torch.manual_seed(3)
    threads = [threading.Thread(target=work, args=(range(start, 40, 4),)) for start in range(4)]
    for thread in threads:
        thread.start()
    meanwhile = [torch.nn.functional.dropout(torch.ones(50)) for _ in range(200)]
    for thread in threads:
        thread.join()
    assert all(torch.equal(found[i], expected[i]) for i in range(40))
    assert all(torch.equal(a, b) for a, b in zip(dropout, meanwhile, strict=True))


def test_no_transforms_leave_the_image_alone() -> None:
    image = tensor()
    assert random_view(image, [], seed=0, epoch=0, index=0) is image


# ---------------------------------------------------------------- shear and zoom


def test_no_shear_and_no_zoom_are_the_image_itself() -> None:
    image = tensor()
    assert torch.equal(ShearZoom(0.0, [1.0, 1.0])(image), image)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_edges_are_replicated_and_dtype_and_shape_stay(dtype: torch.dtype) -> None:
    image = torch.full((3, 20, 33), 200).to(dtype)
    out = ShearZoom(20.0, [0.3, 0.5])(image)
    assert out.dtype == dtype
    torch.testing.assert_close(out, image, rtol=0, atol=1e-4)  # anything but the edge would be seen


def test_zoom_of_an_axis_stretches_about_the_centre() -> None:
    column = torch.arange(100, dtype=torch.float32).expand(1, 41, 100)  # the value is the position along x
    out = ShearZoom(0.0, [2.0, 2.0])(column)
    expected = (torch.arange(100) - 49.5) / 2 + 49.5
    torch.testing.assert_close(out[0, 20], expected, rtol=0, atol=1e-3)


def test_the_shear_slants_by_its_angle_in_pixels_whatever_the_aspect() -> None:
    x = torch.arange(200, dtype=torch.float32).expand(1, 50, 200)
    shear = ShearZoom(30.0, [1.0, 1.0])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.rand(2)
        angle = torch.deg2rad(30.0 * (2 * torch.rand(()) - 1))
        torch.manual_seed(0)
        out = shear(x)
    slope = (out[0, 35, 100] - out[0, 15, 100]) / 20
    torch.testing.assert_close(slope, -torch.sin(angle), rtol=0, atol=1e-3)


def test_the_axes_are_zoomed_independently_within_the_range() -> None:
    y, x = torch.meshgrid(torch.arange(101.0), torch.arange(101.0), indexing="ij")
    position = torch.stack([x, y, x])
    zooms = []
    for index in range(60):
        out = random_view(position, [ShearZoom(0.0, [0.8, 1.2])], seed=0, epoch=0, index=index)
        zooms.append((float(10 / (out[0, 50, 55] - out[0, 50, 45])), float(10 / (out[1, 55, 50] - out[1, 45, 50]))))
    measured = np.array(zooms)
    assert (measured > 0.799).all()
    assert (measured < 1.201).all()
    assert measured.min() < 0.85
    assert measured.max() > 1.15
    assert abs(np.corrcoef(measured.T)[0, 1]) < 0.4


@pytest.mark.parametrize(
    ("degrees", "scale"), [(-1.0, [1.0, 1.0]), (90.0, [1.0, 1.0]), (0.0, [1.2, 0.8]), (0.0, [0.0, 1.0])]
)
def test_shear_zoom_refuses_what_has_no_meaning(degrees: float, scale: list[float]) -> None:
    with pytest.raises(RequestError, match="augmentation: ShearZoom"):
        ShearZoom(degrees, scale)


# ---------------------------------------------------------------- the augmentations


@pytest.mark.parametrize("size", [64, 224])
@pytest.mark.parametrize("name", ["none", "flip", "crop_flip", "crop_rotate_flip", "shear_zoom_flip"])
def test_every_augmentation_gives_the_networks_input_whatever_the_image(name: str, size: int) -> None:
    node = yaml.safe_load((CONF / "augmentation" / f"{name}.yaml").read_text(encoding="utf-8"))
    transforms = []
    for step in node["transforms"]:
        share = Fraction(str(step.get("size", 1))) * size  # sizes are shares of the input size
        transforms.append(component({**step, **({"size": round(share)} if "size" in step else {})}, name)())
    preprocessing = Preprocessing(size, round(size * 8 / 7), size, *IMAGENET)
    for height, width in ((300, 400), (50, 41), (64, 64)):
        image = tensor(height, width)
        given = preprocessing.view(image) if node["input"] == "view" else image
        views = [random_view(given, transforms, seed=0, epoch=1, index=i) for i in range(6)]
        assert all(view.shape == (3, size, size) and view.dtype == torch.uint8 for view in views)
        assert (name == "none") == all(torch.equal(view, views[0]) for view in views)


def test_a_file_larger_than_any_image_is_not_read(tmp_path: Path) -> None:
    film = tmp_path / "film.jpg"
    film.write_bytes(b"\xff\xd8\xff\xe0")
    os.truncate(film, MAX_BYTES + 1)  # takes no space on the disk
    with pytest.raises(UnreadableImage, match=r"^500 MB are more than an image has$"):
        decode(film)


@pytest.mark.parametrize(
    "draw",
    [torch.rand_like, torch.randn_like, lambda x: torch.randint_like(x, 9), lambda x: torch.randint_like(x, 2, 9),
     lambda x: torch.randint_like(x, low=2, high=9)],
    ids=["rand", "randn", "below", "between", "by name"],
)  # fmt: skip
def test_what_is_drawn_like_a_tensor_needs_no_generator_of_torchs(
    draw: Callable[[torch.Tensor], torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    def views() -> list[torch.Tensor]:
        image = torch.zeros(3, 4, 5)
        return [augmentation.random_view(image, [draw], seed=1, epoch=epoch, index=2) for epoch in (0, 0, 1)]

    plain = {torch.rand_like: torch.rand, torch.randn_like: torch.randn, torch.randint_like: torch.randint}
    monkeypatch.setattr(augmentation, "_LIKE", plain)  # as with an older torch
    one, same, other = views()
    assert (one.shape, one.dtype) == ((3, 4, 5), torch.float32)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)

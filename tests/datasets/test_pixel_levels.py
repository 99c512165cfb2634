"""Images of more than 8 bits: one range for a data set, from headers or measured, the same wherever pixels are read."""

import dataclasses
import io
import itertools
import json
import logging
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from omegaconf import open_dict
from PIL import Image

import tlx
from tlx.config.compose import compose
from tlx.config.schema import Config
from tlx.config.validation import checked
from tlx.core.errors import RequestError
from tlx.core.stopwatch import Clock
from tlx.datasets import content_digests, image_decoding
from tlx.datasets.content_digests import Decoded
from tlx.datasets.data_range import scale
from tlx.datasets.image_decoding import decode, examined, pixels_of
from tlx.datasets.pixel_levels import Levels, Range, common_range, eight_bit
from tlx.datasets.readers import image_folder
from tlx.datasets.splits import Data, split
from tlx.runs.evaluate_model import evaluate
from tlx.runs.prepare import identify, prepare

Deep = NDArray[Any]
ROWS = np.arange(0, 1024, dtype=np.uint16).reshape(32, 32)  # 10 bits, each value once


@pytest.fixture(autouse=True)
def nothing_was_said() -> Iterator[None]:
    image_decoding._warned.clear()
    content_digests.seen.digests.clear()
    yield
    image_decoding._warned.clear()


def png(values: Deep, *, bits: int | None = None) -> bytes:
    """[H, W, C] of 16 bits as PNG, which Pillow does not write in colour: grey, grey+alpha, RGB, RGBA."""
    height, width, channels = values.shape

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in values)
    significant = chunk(b"sBIT", bytes([bits] * channels)) if bits else b""
    body = chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + significant + body


def tiff(values: Deep, *, order: str = "<", tags: dict[int, int] | None = None) -> bytes:
    """[H, W, C] of 16 bits as an uncompressed TIFF."""
    height, width, channels = values.shape
    pixels = values.astype(f"{order}u2").tobytes()
    extra = {338: (3, (2,))} if channels == 4 else {}
    known: dict[int, tuple[int, tuple[int, ...]]] = {
        256: (4, (width,)),
        257: (4, (height,)),
        258: (3, (16,) * channels),
        259: (3, (1,)),
        262: (3, (2 if channels > 1 else 1,)),
        273: (4, (8,)),
        277: (3, (channels,)),
        278: (4, (height,)),
        279: (4, (len(pixels),)),
        **extra,
        **{tag: (3, (value,) * channels) for tag, value in (tags or {}).items()},
    }
    start, entries, far = 8 + len(pixels), b"", b""
    beyond = start + 2 + 12 * len(known) + 4
    for tag, (kind, numbers) in sorted(known.items()):
        data = struct.pack(f"{order}{len(numbers)}{'H' if kind == 3 else 'I'}", *numbers)
        if len(data) > 4:
            far, data = far + data, struct.pack(f"{order}I", beyond + len(far))
        entries += struct.pack(f"{order}HHI", tag, kind, len(numbers)) + data.ljust(4, b"\0")
    magic = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, start)
    return magic + pixels + struct.pack(f"{order}H", len(known)) + entries + bytes(4) + far


def saved(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def expected(values: Deep, span: Range) -> NDArray[np.uint8]:
    low, high = span
    return np.rint((np.clip(values.astype(float), low, high) - low) / (high - low) * 255).astype(np.uint8)


# ---------------------------------------------------------------- one image

GREY: dict[str, Callable[[Deep], bytes]] = {
    "png": lambda v: saved(Image.fromarray(v)),
    "tiff": lambda v: saved(Image.fromarray(v), "TIFF"),
    "tiff packed": lambda v: saved(Image.fromarray(v), "TIFF", compression="tiff_lzw"),
    "tiff other order": lambda v: tiff(v[..., None], order=">"),
    "tiff of 32 bits": lambda v: saved(Image.fromarray(v.astype(np.int32)), "TIFF"),
    "tiff of floats": lambda v: saved(Image.fromarray(v.astype(np.float32)), "TIFF"),
    "pgm": lambda v: b"P5 32 32 1023\n" + v.astype(">u2").tobytes(),
    "pgm as text": lambda v: b"P2 32 32 1023\n" + " ".join(map(str, v.ravel().tolist())).encode(),
    "pgm of 16 bits": lambda v: b"P5 32 32 65535\n" + v.astype(">u2").tobytes(),
}


@pytest.mark.parametrize("form", GREY)
def test_grey_of_any_format_has_its_range_spread_over_eight_bits(form: str) -> None:
    data = GREY[form](ROWS)
    found = decode(data, (0.0, 1023.0))
    np.testing.assert_array_equal(found, np.repeat(expected(ROWS, (0, 1023))[..., None], 3, axis=2))
    known = examined(data)
    assert isinstance(known, Levels)
    assert known[:2] == (1, 1022)  # but for one value of 1,000 at either end
    assert known.said == ((0, 1023) if form in ("pgm", "pgm as text") else None)


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("form", ["png", "tiff", "tiff other order"])
def test_colour_of_sixteen_bits_is_read_whole(form: str, channels: int) -> None:
    values = np.random.default_rng(0).integers(0, 1024, (9, 7, channels)).astype(np.uint16)
    values[..., 3:] = 65535  # opaque
    data = png(values) if form == "png" else tiff(values, order=">" if "other" in form else "<")
    np.testing.assert_array_equal(decode(data, (0, 1023)), expected(values[..., :3], (0, 1023)))
    with Image.open(io.BytesIO(data)) as image:  # one of Pillow's that is not loaded yet
        np.testing.assert_array_equal(pixels_of(image, (0, 1023)), decode(data, (0, 1023)))
    assert isinstance(examined(data), Levels)


def test_deep_transparency_lies_over_white_and_is_not_measured() -> None:
    values = np.zeros((8, 8, 2), dtype=np.uint16)
    values[:4] = 500, 65535
    values[4:] = 40_000, 0  # whatever an invisible pixel says
    assert isinstance(found := examined(png(values)), Levels)
    assert found[:2] == (500, 500)
    shown = decode(png(values), (0, 1000))
    assert (shown[:4] == expected(np.array(500), (0, 1000))).all()
    assert (shown[4:] == 255).all()


def test_values_that_are_no_number_are_black_and_are_not_measured() -> None:
    values = np.linspace(0, 8, 64, dtype=np.float32).reshape(8, 8)
    values[0, :2] = np.nan, np.inf
    data = saved(Image.fromarray(values), "TIFF")
    assert isinstance(found := examined(data), Levels)
    assert found.high == 8
    assert decode(data, (0, 8))[0, :2, 0].tolist() == [0, 255]
    assert examined(saved(Image.fromarray(np.full((4, 4), np.nan, dtype=np.float32)), "TIFF")) is None


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (png(ROWS[..., None], bits=10), (0, 1023)),
        (png(ROWS[..., None], bits=16), None),
        (tiff(ROWS[..., None], tags={340: 16, 341: 4095}), (16, 4095)),
        (tiff(ROWS[..., None], tags={281: 2047}), (0, 2047)),
        (tiff(ROWS[..., None], tags={341: 65535}), None),  # what any 16 bits hold
    ],
)
def test_a_header_may_say_the_range(data: bytes, said: Range | None) -> None:
    assert isinstance(found := examined(data), Levels)
    assert found.said == said


def test_an_image_of_eight_bits_has_no_levels_and_ignores_the_range() -> None:
    for mode, format in itertools.product(("L", "RGB"), ("PNG", "TIFF", "JPEG", "PPM")):
        data = saved(Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).convert(mode), format)
        np.testing.assert_array_equal(decode(data, (0, 31)), decode(data))
        np.testing.assert_array_equal(examined(data), decode(data))


# ---------------------------------------------------------------- one range


@pytest.mark.parametrize(
    ("lows", "highs", "span"),
    [
        ([0, 3], [1000, 640], (0, 1023)),  # a sensor of 10 bits, whatever its brightest picture
        ([80], [245], (0, 255)),
        ([0], [256], (0, 511)),
        ([0], [65000], (0, 65535)),
        ([0], [0.97], (0, 1)),
        ([0], [0.3], (0, 0.5)),
        ([0], [254.3], (0, 255)),
        ([0], [0], (0, 1)),
        ([-1024], [3071], (-1024, 3072)),  # Hounsfield units
        ([-1], [1], (-1, 1)),
        ([29_003], [31_020], (28_928, 31_104)),  # temperatures: all the contrast that there is
        ([7], [7], (7, 7.5)),
    ],
)
def test_a_measured_range_holds_all_values_and_is_round(lows: list[float], highs: list[float], span: Range) -> None:
    assert common_range(itertools.starmap(Levels, zip(lows, highs, strict=True))) == (span, False)


def test_headers_are_believed_where_they_can_be_right() -> None:
    said = [Levels(0, 900, (0, 4095)), Levels(5, 100, (0, 1023))]
    assert common_range(said) == ((0, 4095), True)  # one range, not one for each file
    assert common_range([*said, Levels(0, 60_000, (0, 1023))]) == ((0, 65535), False)  # spread over all 16 bits
    assert common_range([*said, Levels(0, 2000)]) == ((0, 2047), False)
    assert common_range([]) is None


def test_eight_bits_of_a_range_are_exact_at_both_ends() -> None:
    for span in ((0.0, 1.0), (-1024.0, 3072.0), (100.0, 4095.0)):
        ends = np.array([[span[0] - 1, span[0], sum(span) / 2, span[1], span[1] + 1]], dtype=np.float32)
        assert eight_bit(ends, span).tolist()[0] in ([0, 0, 127, 255, 255], [0, 0, 128, 255, 255])


# ---------------------------------------------------------------- a data set


def photos(root: Path, top: int = 1023, *, form: str = "png16", each: int = 8, hot: bool = False) -> Path:
    """Two classes of stripes, of values 0..`top`, in 8 bits where `form` says so."""
    draw = np.random.default_rng(0)
    along = np.arange(32)
    for name, axis in (("bars", 0), ("stripes", 1)):
        (root / name).mkdir(parents=True)
        for i in range(each):
            wave = (np.sin(along / 2 + draw.uniform(0, 6)) + 1) / 2
            picture = np.repeat(np.expand_dims(wave, 1 - axis), 32, 1 - axis) * draw.uniform(0.5, 1)
            picture[0, 0], picture[0, 1] = (0, 1) if i == 0 else (0, 0.5)
            values = np.rint(picture * (255 if form == "png8" else top))
            if hot and form != "png8":
                values[3, 3] = 65535
            if form == "float":
                Image.fromarray(values.astype(np.float32)).save(root / name / f"{i}.tif")
            elif form == "int32":
                Image.fromarray(values.astype(np.int32)).save(root / name / f"{i}.tif")
            else:
                kind = np.uint8 if form == "png8" else np.uint16
                Image.fromarray(values.astype(kind)).save(root / name / f"{i}.png")
    return root


def loaded(root: Path, **keys: Any) -> Data:
    return split(image_folder(str(root)), checked_config(root, **keys).dataset, 0)


def checked_config(root: Path, *more: str, **keys: Any) -> Config:
    words = [f"dataset.{key}={value}" for key, value in keys.items()]
    node = compose(["dataset=image_folder", f"dataset.root={root}", *words, *more])
    with open_dict(node):
        node.pop("hydra")
    return checked(node)


@pytest.mark.parametrize("form", ["png16", "int32", "float"])
@pytest.mark.parametrize("top", [255, 1023, 4095, 65535])
def test_every_depth_looks_as_the_same_pictures_in_eight_bits(
    tmp_path: Path, form: str, top: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "tlx")
    deep = loaded(photos(tmp_path / "deep", top, form=form, hot=top == 1023))
    span = scale(deep, None)
    assert span == (0, top)
    line = f"range: values 0 to {top} become black to white in 16 images, measured over {len(deep.train)}"
    assert [record.message for record in caplog.records] == [line]
    plain = loaded(photos(tmp_path / "plain", form="png8"))
    assert scale(plain, None) is None
    assert len(caplog.records) == 1
    for ours, theirs in ((deep.train, plain.train), (deep.val, plain.val), (deep.test, plain.test)):
        for index in range(len(ours)):
            apart = np.abs(ours.decode(index).astype(int) - theirs.decode(index))
            apart[3, 3] = 0  # hot
            assert apart.max() <= 1


def test_the_range_is_measured_over_what_trains_and_is_known_without_a_second_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = photos(tmp_path / "photos")
    parts = image_folder(str(root))
    common = checked_config(root).dataset
    first = split(parts, common, 0)
    bright = first.test.files[0]
    Image.fromarray(np.full((32, 32), 65535, dtype=np.uint16)).save(bright)
    known = Decoded(tmp_path / "known.txt")
    second = split(image_folder(str(root)), common, 0, known)
    assert scale(second, None) == (0, 1023)
    for images in (second.train, second.val, second.test):
        known.add(images.digests(), dict(images.levels()))

    def never(data: bytes) -> None:
        raise AssertionError("decoded again")

    monkeypatch.setattr("tlx.datasets.image_decoding.examined", never)
    third = split(image_folder(str(root)), common, 0, Decoded(tmp_path / "known.txt"))
    assert scale(third, None) == (0, 1023)
    assert third.train.levels() == second.train.levels()


def test_what_is_mixed_given_dark_or_of_no_use_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tlx")
    photos(tmp_path / "photos", each=4)
    for file in sorted((tmp_path / "photos").rglob("[0-1].png")):
        Image.new("L", (32, 32), 77).save(file)
    mixed = loaded(tmp_path / "photos")
    assert scale(mixed, (0, 65535)) == (0, 65535)
    said = [record.message for record in caplog.records]
    assert said[0].endswith("in 4 images, as dataset.range says; the other 4 have 8 bits and stay as they are")
    assert said[1].startswith("range: no training image has values above ")
    plain = loaded(photos(tmp_path / "plain", form="png8"))
    assert scale(plain, (0, 1023)) is None
    assert "dataset.range=[0, 1023]: no image has more than 8 bits" in caplog.records[-1].message


def test_images_of_fewer_bits_than_the_others_are_counted_as_nearly_black(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    photos(tmp_path / "photos", 65535)
    for top, each in ((1023, 3), (1, 1)):  # of 10 bits, and floats of 0..1, beside 16 bits
        form = "float" if top == 1 else "png16"
        photos(tmp_path / str(top), top, form=form, each=each)
        for file in (tmp_path / str(top) / "bars").iterdir():
            file.rename(tmp_path / "photos" / "bars" / f"{top}-{file.name}")
    assert scale(loaded(tmp_path / "photos"), None) == (0, 65535)
    assert len(caplog.records) == 1
    assert caplog.records[0].message.startswith(
        "range: 4 of these 20 images have no value above 978, and are nearly black"
    )


@pytest.mark.parametrize("value", ["[1]", "[5,5]", "[9,1]", "[0,1,2]", "[0,.inf]", "[]", "dark"])
def test_a_range_that_is_none_is_refused(tmp_path: Path, value: str) -> None:
    with pytest.raises(RequestError, match=r"dataset\.range"):
        checked_config(tmp_path, range=value)


def test_identities_and_features_of_eight_bits_are_as_before_and_of_others_name_the_range(tmp_path: Path) -> None:
    fast = ["backbone=small_cnn", "strategy=scratch", "backbone.input_size=32"]
    plain, deep = photos(tmp_path / "plain", form="png8"), photos(tmp_path / "deep")

    def of(root: Path, *more: str) -> tuple[str, dict[str, Any], str]:
        job = prepare(checked_config(root, f"output={tmp_path}/out", *fast, *more), Clock())
        from tlx.runs.build_features import features_of

        return identify(job), job.preprocessing.to_dict(), features_of(job).splits["train"].spec

    identity, seen, spec = of(plain)
    assert "range" not in seen
    assert "range" not in spec
    assert of(plain, "dataset.range=[0,1023]")[0] == identity
    measured, other = of(deep), of(deep, "dataset.range=[0,4095]")
    assert measured == of(deep, "dataset.range=[0,1023]")
    assert json.loads(measured[2])["range"] == [0, 1023]
    assert measured[0] != other[0]
    assert measured[2] != other[2]


# ---------------------------------------------------------------- a run, and its model in use


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    made = {}
    for form in ("png16", "png8"):
        root = photos(tmp_path_factory.mktemp(form) / "photos", form=form)
        words = ["backbone=small_cnn", "strategy=scratch", "backbone.input_size=32", "training.epochs=1"]
        output = root.parent / "out"
        made[form] = (
            root,
            tlx.run(["dataset=image_folder", f"dataset.root={root}", f"output={output}", "tracking=none", *words]),
        )
    return made


def test_the_model_knows_its_range_and_uses_it_everywhere(
    runs: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root, summary = runs["png16"]
    model = tlx.load(summary.folder)
    assert summary.range == [0, 1023]
    assert model.preprocessing.range == (0, 1023)
    assert json.loads((summary.folder / "model/model.json").read_text())["preprocessing"]["range"] == [0, 1023]
    file = root / "bars/2.png"
    whole = np.asarray(Image.open(file))
    eight = Image.fromarray(expected(whole, (0, 1023)))
    predictions = model.predict([file, file.read_bytes(), Image.open(file), eight])
    assert len({prediction.probability for prediction in predictions}) == 1
    words = ["dataset=image_folder", f"dataset.root={root}", f"output={tmp_path}"]
    again = evaluate(str(summary.folder), words, "test")
    assert again.scores.accuracy == summary.test_accuracy
    assert again.scores.loss == pytest.approx(summary.test_loss, rel=1e-6)
    with pytest.raises(RequestError, match=r"dataset\.range=\[0\.0, 4095\.0\]: the model brings its own, \[0\.0, 1023"):
        evaluate(str(summary.folder), [*words, "dataset.range=[0,4095]"])
    assert not caplog.records
    Image.fromarray(whole * 4).save(tmp_path / "bright.png")
    model.predict([tmp_path / "bright.png"] * 3)
    assert isinstance(found := examined((tmp_path / "bright.png").read_bytes()), Levels)
    assert [record.message for record in caplog.records] == [
        f"{tmp_path / 'bright.png'}: values outside of the range 0 to 1023 (dataset.range) are clipped: this image has "
        f"{found.low:.0f} to {found.high:.0f}"
    ]
    for name, values in (("low", whole // 64), ("float", (whole / 1023).astype(np.float32))):
        Image.fromarray(values).save(tmp_path / f"{name}.tif")
    model.predict([tmp_path / "low.tif", tmp_path / "float.tif"])
    assert len(caplog.records) == 2  # once, whatever the number of images
    said = caplog.records[1].message
    assert said.startswith(f"{tmp_path / 'low.tif'}: nearly black in the range 0 to 1023 (dataset.range): this image ")


def test_a_model_without_a_range_reads_deep_images_as_before_with_a_word(
    runs: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    _, summary = runs["png8"]
    model = tlx.load(summary.folder)
    assert summary.range is None
    assert "range" not in model.description["preprocessing"]
    file = runs["png16"][0] / "bars/2.png"
    dark = Image.fromarray(np.rint(np.asarray(Image.open(file)) / 257).astype(np.uint8))
    first, second = model.predict([file, dark])
    assert first.probabilities == second.probabilities
    assert [record.message for record in caplog.records] == [
        f"{file}: an image of more than 8 bits, for which no range is known: 0 becomes black and 65535 white (of "
        "floats 1, or 255 where any is above 1)"
    ]


@pytest.mark.parametrize("span", [[0], [3, 3], ["a", 1], [0, float("inf")]])
def test_a_saved_model_with_an_impossible_range_is_refused(runs: dict[str, Any], tmp_path: Path, span: Any) -> None:
    for file in (runs["png16"][1].folder / "model").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    content = json.loads((tmp_path / "model.json").read_text())
    content["preprocessing"]["range"] = span
    (tmp_path / "model.json").write_text(json.dumps(content))
    with pytest.raises(RequestError, match="damaged"):
        tlx.load(tmp_path)


def test_a_range_goes_with_the_preprocessing_through_json(runs: dict[str, Any]) -> None:
    seen = tlx.load(runs["png16"][1].folder).preprocessing
    assert type(seen).from_dict(json.loads(json.dumps(seen.to_dict()))) == seen
    assert dataclasses.replace(seen, range=None) != seen

"""Near duplicates: what is planted is found, what only looks alike is not, and nothing depends on order or blocks."""

import io
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw, ImageEnhance

from tlx.analysis.duplicate_groups import Pairs, groups, with_equal
from tlx.analysis.near_duplicates import by_content, near_duplicates

SIZE = 96


def scene(seed: int) -> Image.Image:
    """A picture of overlapping shapes and texture, unlike that of any other seed."""
    rng = np.random.default_rng(seed)
    grain = np.repeat(np.repeat(rng.integers(0, 256, (12, 12, 3)), 8, 0), 8, 1).astype(np.uint8)
    picture = Image.fromarray(grain).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(picture)
    for _ in range(8):
        x, y, w, h = rng.integers(0, SIZE, 4).tolist()
        draw.ellipse((x, y, x + w // 2 + 4, y + h // 2 + 4), fill=tuple(rng.integers(0, 256, 3).tolist()))
    return picture


def on_black(seed: int) -> Image.Image:
    """An object before a black background, as catalogues have it."""
    rng = np.random.default_rng(seed)
    picture = Image.new("RGB", (SIZE, SIZE))
    draw = ImageDraw.Draw(picture)
    for _ in range(6):
        points = [tuple((SIZE / 2 + rng.normal(0, SIZE / 7, 2)).tolist()) for _ in range(4)]
        draw.polygon(points, fill=tuple(rng.integers(30, 256, 3).tolist()))
    return picture


def jpeg(picture: Image.Image) -> Image.Image:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=30)
    return Image.open(file)


CHANGES = {
    "rescaled": lambda picture: picture.resize((41, 41), Image.Resampling.BILINEAR),
    "recompressed": jpeg,
    "cropped": lambda picture: picture.crop((6, 8, 90, 92)),
    "mirrored": lambda picture: picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "shifted": lambda picture: ImageChops.offset(picture, 6, -4).crop((6, 0, SIZE, SIZE - 4)),
    "recoloured": lambda picture: ImageEnhance.Brightness(ImageEnhance.Color(picture).enhance(0.5)).enhance(1.2),
}


def thumbnails(pictures: "list[Image.Image]") -> NDArray[np.uint8]:
    made = [np.asarray(p.convert("RGB").resize((32, 32), Image.Resampling.BOX)) for p in pictures]
    return np.stack(made)


def links(pairs: Pairs, least: float = 0.5) -> set[tuple[int, int]]:
    kept = pairs.above(least)
    return set(zip(kept.first.tolist(), kept.second.tolist(), strict=True))


SCENES = [scene(seed) for seed in range(60)]


@pytest.mark.parametrize("change", CHANGES)
def test_a_picture_and_its_changed_copy_are_near_duplicates_and_no_others(change: str) -> None:
    planted = [CHANGES[change](picture) for picture in SCENES[:12]]
    assert links(near_duplicates(thumbnails([*SCENES, *planted]))) == {(row, 60 + row) for row in range(12)}


def test_features_say_where_thumbnails_are_silent() -> None:
    pictures = thumbnails([*SCENES, *(CHANGES["cropped"](picture) for picture in SCENES[:12])])
    rng = np.random.default_rng(0)
    own = rng.normal(size=(60, 40)).astype(np.float32)
    features = np.concatenate([own, own[:12] + 0.1 * rng.normal(size=(12, 40)).astype(np.float32)])
    with_features, without = near_duplicates(pictures, features), near_duplicates(pictures)
    assert links(with_features) == {(row, 60 + row) for row in range(12)}
    assert with_features.certainty[:12].mean() > without.certainty[:12].mean()


def test_photographs_before_black_of_different_objects_are_no_duplicates() -> None:
    pictures = thumbnails([on_black(seed) for seed in range(80)])
    assert not links(near_duplicates(pictures))
    alike = np.random.default_rng(0).normal(size=(8, 40)).repeat(10, 0) + np.random.default_rng(1).normal(size=(80, 40))
    assert not links(near_duplicates(pictures, alike.astype(np.float32)))


def test_pictures_without_anything_on_them_are_no_near_duplicates() -> None:
    blank = [Image.new("RGB", (32, 32), (level, level, level)) for level in (0, 0, 128, 129, 255, 255)]
    assert not links(near_duplicates(thumbnails(blank)))


def test_the_order_of_images_does_not_matter_and_equal_input_gives_equal_output() -> None:
    pictures = thumbnails([*SCENES[:30], *(CHANGES["shifted"](picture) for picture in SCENES[:10])])
    order = np.random.default_rng(1).permutation(40)
    first, again, other = near_duplicates(pictures), near_duplicates(pictures), near_duplicates(pictures[order])
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert links(first) == {tuple(sorted((int(order[i]), int(order[j])))) for i, j in links(other)}
    assert np.allclose(first.above(0.5).certainty, other.above(0.5).certainty, atol=1e-3)


def test_blocks_and_cells_give_what_one_block_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = thumbnails([*SCENES, *(CHANGES["recompressed"](picture) for picture in SCENES[:20])])
    whole = near_duplicates(pictures)
    monkeypatch.setattr("tlx.analysis.neighbours.CELL", 8)
    cells = near_duplicates(pictures, every=20)
    for package in ("near_duplicates", "neighbours", "alignment"):
        monkeypatch.setattr(f"tlx.analysis.{package}.BLOCK", 7)
    blocks = near_duplicates(pictures)
    assert links(whole) == links(blocks) == links(cells)
    assert np.allclose(whole.above(0.5).certainty, blocks.above(0.5).certainty, atol=1e-3)


@pytest.mark.parametrize("width", [5, 8, 20])
@pytest.mark.parametrize("seed", range(5))
def test_rows_are_ordered_by_their_bytes_and_equal_ones_stay_in_their_order(width: int, seed: int) -> None:
    random = np.random.default_rng([seed, width])
    rows = random.integers(0, 256, (200, width), np.uint8)
    rows[:, : width // 2] = random.integers(0, 2, (200, width // 2)) * 255  # begins that many share
    rows[150:] = rows[random.integers(0, 20, 50)]
    order, new = by_content(rows)
    assert order.tolist() == sorted(range(200), key=lambda row: (rows[row].tobytes(), row))
    assert new.tolist() == [True, *(a != b for a, b in pairwise(rows[row].tobytes() for row in order))]


@pytest.mark.parametrize("number", [0, 1, 2])
def test_few_images(number: int) -> None:
    assert not links(near_duplicates(thumbnails(SCENES)[:number]))


def pairs(*links: tuple[int, int, float]) -> Pairs:
    first, second, certainty = zip(*sorted(links, key=lambda link: -link[2]), strict=True)
    return Pairs(np.array(first), np.array(second), np.array(certainty))


def test_strong_pairs_chain_and_weak_ones_do_not() -> None:
    chain = [(row, row + 1) for row in range(9)]
    assert [group.rows for group in groups(pairs(*((i, j, 0.95) for i, j in chain)))] == [tuple(range(10))]
    weak = groups(pairs(*((i, j, 0.6) for i, j in chain)))
    assert max(len(group.rows) for group in weak) <= 3
    assert not groups(pairs((0, 1, 0.4)))


def test_groups_are_ranked_and_equal_images_are_certain() -> None:
    found = groups(with_equal(pairs((0, 1, 0.7), (2, 3, 0.8), (4, 5, 0.6)), [(4, 5, 6)]))
    assert [group.rows for group in found] == [(4, 5, 6), (2, 3), (0, 1)]
    assert [group.certainty for group in found] == [1.0, 0.8, 0.7]

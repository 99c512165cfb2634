"""Pictures of plane shapes, drawn: the data set that needs no download."""

import zlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from tlx.core.errors import RequestError, nearest
from tlx.datasets.image_decoding import Pixels

OVERSAMPLE = 4  # edges are smoothed by drawing larger
RADIUS = (0.25, 0.42)  # of the picture's side
GROUND, COLOUR = (150.0, 255.0), (0.0, 130.0)  # levels a channel: some dark colour on some light one

Points = NDArray[np.float64]


def _regular(corners: int) -> Points:
    angles = 2 * np.pi * np.arange(corners) / corners
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _star(points: int, inner: float) -> Points:
    radii = np.tile([1.0, inner], points)
    corners: Points = _regular(2 * points) * radii[:, None]
    return corners


# Corners on the unit circle. A circle is a polygon of so many corners that none is seen.
SHAPES: dict[str, Points] = {
    "circle": _regular(90),
    "triangle": _regular(3),
    "square": _regular(4),
    "pentagon": _regular(5),
    "hexagon": _regular(6),
    "star": _star(5, 0.42),
}


def known(shapes: Iterable[str]) -> None:
    """Raises `RequestError` for a shape that cannot be drawn."""
    for shape in shapes:
        if shape not in SHAPES:
            raise RequestError(
                f"dataset.shapes: no shape is called {shape}{nearest(shape, SHAPES)}; there are {', '.join(SHAPES)}"
            )


def draw(shape: str, rng: np.random.Generator, size: int = 96, noise: float = 8.0) -> Pixels:
    """One picture of a shape of `SHAPES`: uint8 [size, size, 3].

    Place, radius (a quarter of the side and more), rotation and both colours (dark on light) come from `rng`; so does
    the noise, whose standard deviation is `noise` levels of 0..255. The shape always lies whole within the picture.
    """
    radius = rng.uniform(*RADIUS)
    margin = max(0.02, 1.5 / size)
    centre = rng.uniform(radius + margin, 1 - margin - radius, size=2)
    angle = rng.uniform(0, 2 * np.pi)
    ground, colour = rng.uniform(*GROUND, size=3), rng.uniform(*COLOUR, size=3)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    corners = (SHAPES[shape] @ turn * radius + centre) * size * OVERSAMPLE
    mask = Image.new("L", (size * OVERSAMPLE, size * OVERSAMPLE))
    ImageDraw.Draw(mask).polygon([(float(x), float(y)) for x, y in corners], fill=255)
    cover = np.asarray(mask.resize((size, size), Image.Resampling.BOX), dtype=np.float64)[..., None] / 255
    picture = ground * (1 - cover) + colour * cover + rng.normal(0, noise, size=(size, size, 3))
    pixels: Pixels = np.clip(np.rint(picture), 0, 255).astype(np.uint8)
    return pixels


def generator(seed: int, shape: str, part: str, number: int) -> np.random.Generator:
    """The random numbers of one picture: they do not depend on which other pictures there are."""
    return np.random.default_rng([seed, zlib.crc32(shape.encode()), zlib.crc32(part.encode()), number])


@dataclass(frozen=True)
class Drawn:
    """Draws image i of a part that has `count` images of each shape, shape after shape."""

    shapes: tuple[str, ...]
    part: str
    count: int
    size: int
    noise: float
    seed: int

    def __call__(self, index: int) -> Pixels:
        shape = self.shapes[index // self.count]
        return draw(shape, generator(self.seed, shape, self.part, index % self.count), self.size, self.noise)

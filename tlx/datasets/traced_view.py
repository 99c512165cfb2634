"""The evaluation view of images of any size as operations of tensors alone, for a graph that other programs run."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from tlx.datasets.preprocessing import Preprocessing

__all__ = ["TracedView"]

BLOCK = 32  # positions of the result that are computed together from one stretch of the image
SUPPORT = {"bilinear": 1, "bicubic": 2}  # how far a filter reaches, pixels of the image or, if larger, of the result
PRECISION = 22  # bits behind the point that a weight has at most
LARGEST = 2**15  # below which a weight is, as an integer


class Side(NamedTuple):
    """A side of an image: its `length`, what it is `resized` to, and where the view of it starts; pixels."""

    length: int
    resized: int
    start: int  # negative where there are borders


class TracedView(nn.Module):
    """`Preprocessing.view` of a batch of images of one size: uint8 `[N, H, W, 3]` to float32 `[N, 3, S, S]`, 0..255.

    The same pixels, but for a level in fewer than one of a hundred, mostly of ten thousand: the filters of Pillow and
    torch, antialiased, as two products of matrices, along the width and then along the height, rounded to whole levels
    after each; the weights are whole numbers of 16 bits, as theirs are (Pillow, `Resample.c`; torch,
    `UpSampleKernel.cpp`). It needs no operator that resizes: those of other programs have other pixels. Height and
    width may be any; where `view` refuses an image that is not square or very narrow, its centre is taken.
    """

    fill: Tensor
    powers: Tensor

    def __init__(self, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.preprocessing = preprocessing
        colour = torch.tensor([round(255 * mean) for mean in preprocessing.mean], dtype=torch.float32)
        self.register_buffer("fill", colour, persistent=False)
        self.register_buffer("powers", 2.0 ** torch.arange(1, PRECISION + 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """uint8 `[N, H, W, 3]` → float32 `[N, 3, S, S]`, whole numbers in 0..255."""
        of_all, height, width, side = *images.shape[:3], self.preprocessing.input_size
        rows, columns = self._side(height, height, width), self._side(width, height, width)
        # Matrices are transposed, and not single pixels: onnxruntime is slow at that.
        lines = images.reshape(of_all, height, width * 3).transpose(1, 2).reshape(of_all, width, 3 * height)
        lines = self._resized(lines, columns).reshape(of_all, side * 3, height).transpose(1, 2)
        view = self._resized(lines, rows).reshape(of_all, side, side, 3)
        if self.preprocessing.pad:
            inside = self._inside(rows)[:, None] & self._inside(columns)
            view = torch.where(inside[..., None], view, self.fill)
        return view.permute(0, 3, 1, 2)

    def _side(self, length: int, height: int, width: int) -> Side:
        """What becomes of a side; in whole numbers, which stay open in a traced graph."""
        size, given = self.preprocessing.input_size, self.preprocessing
        if given.pad:
            long = _most(height, width)
            resized = _most(_rounded(length * size, long), 1)
            return Side(length, resized, -((size - resized) // 2))
        short = _least(height, width)
        resized = size if given.resize is None else given.resize * length // short
        return Side(length, resized, _rounded(resized - size, 2))

    def _inside(self, side: Side) -> Tensor:
        """Which positions of the view are in the image, bool `[S]`; those of borders are not."""
        places = torch.arange(self.preprocessing.input_size) + side.start
        return (places >= 0) & (places < side.resized)

    def _resized(self, lines: Tensor, side: Side) -> Tensor:
        """`[N, L, M]` → float32 `[N, S, M]`: the side L resized, and what is in the view of it."""
        of_all, size = lines.shape[0], self.preprocessing.input_size
        places = (torch.arange(size) + side.start).clamp(0, side.resized - 1)
        if self.preprocessing.interpolation == "nearest":
            taken = torch.floor((places.float() + 0.5) * _ratio(side.length, side.resized)).long()
            return lines.index_select(1, taken.clamp(max=side.length - 1)).float()
        blocks = -(-size // BLOCK)
        places = torch.cat([places, places[-1:].expand(blocks * BLOCK - size)]).reshape(blocks, BLOCK)
        pixels = self._stretches(places, side)
        weights = self._weights(places, pixels, side)
        taken = pixels.clamp(0, side.length - 1)
        some = lines.index_select(1, taken.reshape(-1)).reshape(of_all, blocks, -1, lines.shape[2]).float()
        sums = (weights @ some).reshape(of_all, blocks * BLOCK, lines.shape[2])[:, :size]
        return torch.floor(sums + 0.5).clamp(0, 255)

    def _stretches(self, places: Tensor, side: Side) -> Tensor:
        """The pixels that blocks of positions are computed from, int64 `[blocks, L]`; some may lie outside."""
        support = SUPPORT[self.preprocessing.interpolation]
        scale = _ratio(side.length, side.resized)
        first = torch.floor((places[:, 0].float() + 0.5) * scale - support * scale.clamp(min=1)).long() - 1
        reach = (BLOCK + 2 * support) * side.length // side.resized + 2 * support + 5
        return first[:, None] + torch.arange(reach)

    def _weights(self, places: Tensor, pixels: Tensor, side: Side) -> Tensor:
        """float32 `[blocks, BLOCK, L]`: how much each pixel counts for each position."""
        # At a side's end fewer pixels share the weight: the largest weight of all is there, also where it is cut off.
        ends = self._shares(torch.zeros_like(places[:1]), torch.arange(pixels.shape[1])[None], side)
        shares = self._shares(places, pixels, side)
        largest = torch.maximum(shares.max(), ends.max())
        bits = (torch.floor(largest * self.powers + 0.5) < LARGEST).sum()
        unit = torch.exp2(bits.float())
        return shares.sign() * torch.floor(shares.abs() * unit + 0.5) / unit

    def _shares(self, places: Tensor, pixels: Tensor, side: Side) -> Tensor:
        """The filter about each position, over the pixels that are there, so that each row sums to 1."""
        # Twice the distance of two centres, in pixels divided by both lengths, is a whole number.
        apart = (2 * pixels[:, None, :] + 1) * side.resized - (2 * places[:, :, None] + 1) * side.length
        distance = apart.abs().float() / (2 * _most(side.length, side.resized))
        there = ((pixels >= 0) & (pixels < side.length))[:, None, :]
        weight = torch.where(there, self._filter(distance), 0.0)
        return weight / weight.sum(-1, keepdim=True)

    def _filter(self, distance: Tensor) -> Tensor:
        """Bilinear, or Keys's bicubic with a = -0.5 (1981), at these distances."""
        if self.preprocessing.interpolation == "bilinear":
            return (1 - distance).clamp(min=0)
        near = (1.5 * distance - 2.5) * distance * distance + 1
        far = (((distance - 5) * distance + 8) * distance - 4) * -0.5
        return torch.where(distance < 1, near, torch.where(distance < 2, far, 0.0))


def _ratio(a: int, b: int) -> Tensor:
    return torch.scalar_tensor(a, dtype=torch.float32) / b


def _least(a: int, b: int) -> int:
    found: int = torch.sym_min(a, b)  # type: ignore[assignment]
    return found


def _most(a: int, b: int) -> int:
    found: int = torch.sym_max(a, b)  # type: ignore[assignment]
    return found


def _rounded(a: int, b: int) -> int:
    """The whole number nearest to a / b; halves go to the even one, as Python's `round` has it."""
    whole, rest = (2 * a + b) // (2 * b), (2 * a + b) % (2 * b)
    tie = 1 - _least(rest, 1)
    return whole - tie * (whole % 2)

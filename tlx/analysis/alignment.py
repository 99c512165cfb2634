"""How well two small pictures agree after one has been laid over the other: mirrored, scaled, shifted, sheared.

A rough search over mirroring, scales and shifts of half-size grey pictures gives a start; the affine map is then
refined below a pixel (inverse compositional Lucas-Kanade: Baker and Matthews, IJCV 56(3), 2004). Gains and offsets of
brightness do not matter. Two different objects keep differing after that; two views of one picture do not.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

SCALES = (0.8, 0.9, 1.0, 1.11, 1.25)
SIDE, HALF, CUT = 32, 16, 2  # of a thumbnail, of a half-size one, and what a window leaves out at each side
WINDOW, SHIFTS = HALF - 2 * CUT, 2 * CUT + 1
NOISE = 6.0  # grey levels of local contrast that count as nothing
OVERLAP = 0.45  # share of the picture that both must show
STEPS = 6  # of the refinement
BLOCK = 512  # pairs at once


class Agreement(NamedTuple):
    """What is left of the difference of pairs after alignment, each [P].

    Attributes:
        structure: correlation of the grey pictures with local brightness and local contrast taken out, -1..1.
        places: mean over the picture of the correlation in each neighbourhood; places without texture count as 0.
        difference: of the colours, without their means, in levels of 0..255 (root of the mean square).
        texture: contrast of fine structure in the poorer of the two, in grey levels.
    """

    structure: Tensor
    places: Tensor
    difference: Tensor
    texture: Tensor


def rough(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """The best correlation of half-size pictures [P], and the map that has it, [P, 2, 3] as `affine_grid` takes it.

    Pictures are uint8 [P, 32, 32, 3].
    """
    blocks = zip(torch.split(one, BLOCK), torch.split(other, BLOCK), strict=True)
    found = [_rough(_half(a), _half(b)) for a, b in blocks]
    return torch.cat([score for score, _ in found]), torch.cat([start for _, start in found])


def agreement(one: Tensor, other: Tensor, start: Tensor) -> Agreement:
    """How well pairs of pictures, uint8 [P, 32, 32, 3], agree, from a rough map [P, 2, 3]."""
    found = list[Agreement]()
    for a, b, begin in zip(torch.split(one, BLOCK), torch.split(other, BLOCK), torch.split(start, BLOCK), strict=True):
        a, b = (x.permute(0, 3, 1, 2).float() for x in (a, b))
        found.append(_measured(a, b, _refined(_blurred(a.mean(1), 0.8), _blurred(b.mean(1), 0.8), begin)))
    return Agreement(*(torch.cat(part) for part in zip(*found, strict=True)))


def _half(pictures: Tensor) -> Tensor:
    """Grey, half the size: [P, 16, 16]."""
    return F.avg_pool2d(pictures.float().mean(3), SIDE // HALF)


def _rough(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    window = one[:, CUT:-CUT, CUT:-CUT]
    window = window - window.mean((1, 2), keepdim=True)
    window = window / window.flatten(1).norm(dim=1)[:, None, None].clamp_min(1e-3)
    both = torch.stack([window, window.flip(2)], 1)
    spectrum = torch.fft.rfft2(F.pad(both, (0, SHIFTS - 1, 0, SHIFTS - 1))).conj()
    sums = torch.stack([torch.eye(HALF)[k : k + WINDOW].sum(0) for k in range(SHIFTS)])  # of a window at each shift
    scores, maps = list[Tensor](), list[list[float]]()
    for scale in SCALES:
        matrix = _resampling(scale)
        scaled = matrix @ other @ matrix.T
        # A window and its shifts fit into the picture: what wraps around is not looked at.
        product = torch.fft.irfft2(torch.fft.rfft2(scaled)[:, None] * spectrum, s=(HALF, HALF))[:, :, :SHIFTS, :SHIFTS]
        spread = sums @ (scaled * scaled) @ sums.T - (sums @ scaled @ sums.T) ** 2 / WINDOW**2
        scores.append((product / spread.clamp_min(4 * WINDOW**2)[:, None].sqrt()).flatten(1))
        maps += [
            [mirror * scale, 0, scale * (k % SHIFTS - CUT) * 2 / HALF, 0, scale, scale * (k // SHIFTS - CUT) * 2 / HALF]
            for mirror in (1, -1)
            for k in range(SHIFTS**2)
        ]
    best, which = torch.cat(scores, 1).max(1)
    return best, torch.tensor(maps)[which].view(-1, 2, 3)


def _resampling(scale: float) -> Tensor:
    """The matrix that scales a row of half-size pixels about its centre, linearly, [16, 16]."""
    at = ((torch.arange(HALF) + 0.5 - HALF / 2) * scale + HALF / 2 - 0.5).clamp(0, HALF - 1)
    return (1 - (at[:, None] - torch.arange(HALF)[None]).abs()).clamp_min(0)


def _blurred(pictures: Tensor, sigma: float) -> Tensor:
    """The last two dimensions, smoothed by a Gaussian that is cut off at the borders."""
    at = torch.arange(pictures.shape[-1]).float()
    matrix = torch.exp(-0.5 * ((at[:, None] - at[None]) / sigma) ** 2)
    matrix = matrix / matrix.sum(1, keepdim=True)
    return matrix @ pictures @ matrix.T


def _laid(pictures: Tensor, maps: Tensor) -> tuple[Tensor, Tensor]:
    """Pictures [P, C, H, W] laid over the others, and where they have pixels, [P, H, W] of 0 and 1."""
    grid = F.affine_grid(maps, [len(pictures), 1, SIDE, SIDE], align_corners=False)
    laid = F.grid_sample(pictures, grid, padding_mode="border", align_corners=False)
    return laid, (grid.abs().amax(-1) <= 1 - 0.5 / SIDE).float()


def _standard(x: Tensor, there: Tensor) -> Tensor:
    """Mean 0 and deviation 1 where pixels are, 0 elsewhere."""
    pixels = there.sum((1, 2)).clamp_min(1)
    x = (x - ((x * there).sum((1, 2)) / pixels)[:, None, None]) * there
    return x / (x.square().sum((1, 2)) / pixels + 4).sqrt()[:, None, None]


def _refined(one: Tensor, other: Tensor, maps: Tensor) -> Tensor:
    """The map of each pair after some steps of Gauss-Newton on grey pictures [P, 32, 32]: the best that was seen."""
    target = _standard(one, torch.ones_like(one))
    across, down = torch.zeros_like(target), torch.zeros_like(target)
    across[:, :, 1:-1] = (target[:, :, 2:] - target[:, :, :-2]) * SIDE / 4
    down[:, 1:-1] = (target[:, 2:] - target[:, :-2]) * SIDE / 4
    at = (torch.arange(SIDE) + 0.5) / SIDE * 2 - 1
    parts = [across * at, across * at[:, None], across, down * at, down * at[:, None], down]
    slopes = torch.stack(parts, 1).flatten(2)
    curvature = slopes @ slopes.transpose(1, 2)
    own = curvature.diagonal(dim1=1, dim2=2)
    inverse = torch.linalg.inv(curvature + torch.diag_embed(0.03 * own + 0.03 * own.mean(1, keepdim=True) + 1e-3))
    best, best_maps = torch.full((len(one),), -2.0), maps
    for step in range(STEPS + 1):
        laid, there = _laid(other[:, None], maps)
        a, b = _standard(one, there), _standard(laid[:, 0], there)
        score = (a * b).sum((1, 2)) / there.sum((1, 2)).clamp_min(1)
        score = torch.where(there.mean((1, 2)) < OVERLAP, -2.0, score)
        better = score > best
        best, best_maps = torch.where(better, score, best), torch.where(better[:, None, None], maps, best_maps)
        if step < STEPS:
            move = (inverse @ (slopes @ (b - a).flatten(1)[..., None]))[..., 0].view(-1, 2, 3)
            move = move * (0.15 / move.abs().amax((1, 2), keepdim=True).clamp_min(0.15))
            maps = _composed(maps, move)
    return best_maps


def _composed(maps: Tensor, move: Tensor) -> Tensor:
    """`maps` after the inverse of the identity plus `move`."""
    linear = torch.linalg.inv(move[:, :, :2] + torch.eye(2))
    shift = -linear @ move[:, :, 2:]
    return torch.cat([maps[:, :, :2] @ linear, maps[:, :, :2] @ shift + maps[:, :, 2:]], 2)


def _measured(one: Tensor, other: Tensor, maps: Tensor) -> Agreement:
    """Of pictures [P, 3, 32, 32]."""
    laid, there = _laid(other, maps)
    pixels = there.sum((1, 2)).clamp_min(1)

    def mean(x: Tensor) -> Tensor:
        return (x * there).sum((-2, -1)) / pixels

    def correlation(a: Tensor, b: Tensor) -> Tensor:
        a, b = ((x - mean(x)[:, None, None]) * there for x in (a, b))
        return (a * b).sum((1, 2)) / (a.square().sum((1, 2)) * b.square().sum((1, 2)) + 1e-6).sqrt()

    greys = one.mean(1), laid.mean(1)
    fine = [grey - _blurred(grey, 2.0) for grey in greys]
    even = [x / (_blurred(x * x, 3.0) + NOISE**2).sqrt() for x in fine]
    a, b = (x * there for x in fine)
    beside = _blurred(a * b, 2.5) / ((_blurred(a * a, 2.5) * _blurred(b * b, 2.5)).sqrt() + NOISE**2 / 4)
    apart = one - one.mean((2, 3), keepdim=True) - laid + laid.mean((2, 3), keepdim=True)
    shown = there.mean((1, 2)) >= OVERLAP
    return Agreement(
        torch.where(shown, correlation(*even), 0),
        torch.where(shown, mean(beside), 0),
        mean(apart.square().mean(1)).sqrt(),
        torch.minimum(*(mean(x * x) for x in fine)).sqrt(),
    )

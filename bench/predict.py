"""python -m bench.predict: `predict` on thousands of JPEGs, against the network alone; and the memory that it takes.

The images are drawn, 500 x 375 pixels, all different. It runs as a process of its own on 500 of them and on all;
then, in one process, chunks are streamed from their files and the same views go through the network alone, in turn.
"""

import argparse
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from bench.runner import Unmeasured, answered, process
from bench.works import python
from tlx.core.atomic_files import atomic
from tlx.core.errors import RequestError

FEW = 500  # images of the short list, and of a chunk
SIDE = (500, 375)  # pixels, width and height


def photograph(rng: np.random.Generator, level: int = 0) -> Image.Image:
    """Noise at two scales, which compresses as a photograph does; `level`, 0..100: how bright it is beside others."""
    coarse = Image.fromarray(rng.integers(0, 156, (12, 16, 3), dtype=np.uint8) + np.uint8(level))
    fine = rng.normal(0, 10, (SIDE[1], SIDE[0], 1))
    whole = np.asarray(coarse.resize(SIDE, Image.Resampling.BICUBIC)) + fine
    return Image.fromarray(np.clip(whole, 0, 255).astype(np.uint8))


def labelled(root: Path, train: int, test: int) -> Path:
    """Photographs of two classes in train/ and test/, so many of a class."""
    rng = np.random.default_rng(0)
    for part, number in (("train", train), ("test", test)):
        for level, name in ((0, "dark"), (100, "light")):
            (root / part / name).mkdir(parents=True)
            for i in range(number):
                photograph(rng, level).save(root / part / name / f"{i:02}.jpg", quality=90)
    return root


def trained(folder: Path, *words: str) -> Path:
    """The folder of a run that has learned next to nothing, in a process of its own.

    Raises:
        Unmeasured: it failed.
    """
    data = labelled(folder / "labelled", 8, 4)
    common = ["dataset=image_folder", f"dataset.root={data}", f"output={folder / 'out'}", "tracking=none"]
    done = process(python(["-m", "tlx", *common, "training.epochs=1", "backbone.weights=none", *words]))
    if done.code:
        raise Unmeasured(done.error)
    return next((folder / "out").rglob("summary.json")).parent


def subcommand(run: Path, images: Path, table: Path) -> tuple[float, float]:
    """Images a second, as the subcommand itself says, and its largest size in MiB.

    Raises:
        Unmeasured: it failed.
    """
    done = process(python(["-m", "tlx", "predict", str(run), str(images), "--csv", str(table)]))
    said = re.fullmatch(r"\d+ images, (\d+) images/s", done.error)
    if done.code or not said:
        raise Unmeasured(done.error)
    return float(said[1]), done.peak_mib


def shares(run: Path, images: Path) -> list[float]:
    """For each chunk, how fast files are predicted, as a share of how fast the network predicts ready views."""
    import torch

    import tlx
    from tlx.core.thread_pool import for_passes, side_by_side
    from tlx.datasets.image_decoding import decode
    from tlx.datasets.preprocessing import as_batch
    from tlx.features.frozen_forward import rows_per_pass

    model = tlx.load(run)
    files = sorted(images.rglob("*.jpg"))
    model.predict(files[:64])  # what is made once
    rows, found = rows_per_pass(model.device), []
    for start in range(0, len(files), FEW):
        chunk = files[start : start + FEW]
        batches = torch.split(as_batch([model.preprocessing.of(decode(file)) for file in chunk]), rows)
        began = time.perf_counter()
        list(side_by_side(model.probabilities, batches, for_passes(model.device)))
        between = time.perf_counter()
        model.predict(chunk)
        found.append((between - began) / (time.perf_counter() - between))
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes as tlx's: 0 all well, 1 it failed, 2 the request was wrong."""
    parser = argparse.ArgumentParser(prog="python -m bench.predict", description=str(__doc__).partition(": ")[2])
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="backbone=resnet18 and other keys of a run")
    parser.add_argument("--images", type=int, default=5_000, help="so many; more than 500 (default %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("bench-results"), metavar="FOLDER")
    given = parser.parse_args(argv)
    return answered(lambda: _measured(given))


def _measured(given: argparse.Namespace) -> str:
    """The table.

    Raises:
        RequestError, Unmeasured: nothing can be measured so.
    """
    if given.images <= FEW:
        raise RequestError(f"--images {given.images}: must be above {FEW}")
    with tempfile.TemporaryDirectory(prefix="tlx-bench-") as place:
        folder, rng = Path(place), np.random.default_rng(1)
        run = trained(folder, *(given.overrides or ["backbone=resnet18"]))
        print(f"drawing {given.images:,} images", file=sys.stderr)
        (folder / "images" / "few").mkdir(parents=True)
        for i in range(given.images):
            name = f"few/{i:05}.jpg" if i < FEW else f"{i:05}.jpg"
            photograph(rng).save(folder / "images" / name, quality=90)
        few = subcommand(run, folder / "images" / "few", folder / "few.csv")
        all_ = subcommand(run, folder / "images", folder / "all.csv")
        ratios = shares(run, folder / "images")
    lines = [
        "| images | images/s | largest size, MiB |",
        "|---|---|---|",
        f"| {FEW:,} | {few[0]:.0f} | {few[1]:.0f} |",
        f"| {given.images:,} | {all_[0]:.0f} | {all_[1]:.0f} |",
        "",
        f"Files as fast as the network alone: {statistics.median(ratios):.0%} "
        f"(median of {len(ratios)} chunks of {FEW}, {min(ratios):.0%} to {max(ratios):.0%})",
    ]
    with atomic(given.out / "predict.md") as path:
        path.write_text("\n".join([*lines, ""]), encoding="utf-8")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())

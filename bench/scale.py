"""python -m bench.scale: time and memory against the number of images, from 1,000 to 100,000.

Draws small images (32 × 32, ten classes, one in a hundred an altered copy of another) and puts them in a folder, in
shards and in Parquet. Each source and number goes through the audit, a run without it (the feature pass and training)
and a prediction of all, each a process of its own. Prints one JSON line each, then a Markdown table.
"""

import argparse
import io
import itertools
import json
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bench.runner import process
from bench.works import python

SIDE, CLASSES, SHARD = 32, 10, 10_000
COPIES = 100  # one image in so many is another one, altered


def pictures(n: int) -> Iterator[tuple[str, int, bytes]]:
    """Name, label and PNG of each: smooth colours, brighter with the label, and noise."""
    rng, before = np.random.default_rng(0), None
    for i in range(n):
        label = i % CLASSES
        coarse = rng.integers(0, 156, (5, 5, 3), dtype=np.uint8) + np.uint8(10 * label)
        image = Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        if before is not None and i % COPIES == CLASSES:  # of the same label
            image = before.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if i % COPIES == 0:
            before = image
        pixels = np.asarray(image) + rng.normal(0, 6, (SIDE, SIDE, 1))
        out = io.BytesIO()
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(out, "PNG", compress_level=1)
        yield f"{i:06}", label, out.getvalue()


def folder(root: Path, n: int) -> list[str]:
    """A sub-folder a class."""
    for name, label, content in pictures(n):
        (root / f"class{label}").mkdir(parents=True, exist_ok=True)
        (root / f"class{label}" / f"{name}.png").write_bytes(content)
    return ["dataset=image_folder", f"dataset.root={root}"]


def shards(root: Path, n: int) -> list[str]:
    """Tar files of 10,000 images, each beside its label."""
    root.mkdir(parents=True)
    rest, last = pictures(n), (n - 1) // SHARD
    for number in range(last + 1):
        with tarfile.open(root / f"{number:02}.tar", "w") as made:
            for name, label, content in itertools.islice(rest, SHARD):
                for ending, part in (("png", content), ("cls", str(label).encode())):
                    about = tarfile.TarInfo(f"{name}.{ending}")
                    about.size = len(part)
                    made.addfile(about, io.BytesIO(part))
    return ["dataset=webdataset", f"dataset.root={root}/{{00..{last:02}}}.tar"]


def parquet(root: Path, n: int) -> list[str]:
    """As Hugging Face's `datasets` writes it: the files' bytes and class labels."""
    import datasets

    root.mkdir(parents=True)
    columns = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=[f"class{i}" for i in range(CLASSES)])}
    )
    made = datasets.Dataset.from_generator(_rows, features=columns, cache_dir=str(root / "cache"), gen_kwargs={"n": n})
    made.to_parquet(str(root / "train.parquet"))
    shutil.rmtree(root / "cache")
    return ["dataset=huggingface", f"dataset.root={root}"]


def _rows(n: int) -> Iterator[dict[str, Any]]:
    for _, label, content in pictures(n):
        yield {"image": {"bytes": content, "path": None}, "label": label}


SOURCES: dict[str, Callable[[Path, int], list[str]]] = {"folder": folder, "shards": shards, "parquet": parquet}


def measured(source: str, n: int, below: Path) -> Iterator[dict[str, Any]]:
    """A row for each of audit, again (the audit a second time), run and, of files, predict."""
    data = SOURCES[source](below / "data", n)
    common = [*data, f"output={below / 'out'}", "tracking=none", "backbone.input_size=32"]
    yield _row(source, n, "audit", ["audit", *common])
    yield _row(source, n, "audit again", ["audit", *common])
    yield _row(source, n, "run", [*common, "dataset.audit=off", "training.epochs=3"])
    if source == "folder":
        words = ["predict", "latest", str(below / "data"), "--csv", str(below / "found.csv")]
        yield _row(source, n, "predict", [*words, "--output", str(below / "out")])


def _row(source: str, n: int, what: str, words: list[str]) -> dict[str, Any]:
    done = process(python(["-m", "tlx", *words]))
    row = {"source": source, "images": n, "what": what, "seconds": done.wall, "peak_mib": done.peak_mib}
    return row if done.code in (0, 1) else {**row, "failed": done.error}


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: a row a source and command; seconds and MiB for each number of images."""
    numbers = sorted({row["images"] for row in rows})
    titles = [f"{n:,} images" for n in numbers]
    lines = ["| source, command | " + " | ".join(titles) + " | ms a further image |", "|---" * (len(titles) + 2) + "|"]
    for source, what in dict.fromkeys((row["source"], row["what"]) for row in rows):
        found = {row["images"]: row for row in rows if (row["source"], row["what"]) == (source, what)}
        cells = [_cell(found.get(n)) for n in numbers]
        ends = [found[n]["seconds"] for n in (numbers[0], numbers[-1]) if n in found and "failed" not in found[n]]
        further = numbers[-1] - numbers[0]
        slope = f"{1000 * (ends[1] - ends[0]) / further:.2f}" if len(ends) == 2 and further else "–"
        lines.append(f"| {source}, {what} | " + " | ".join(cells) + f" | {slope} |")
    return "\n".join(lines)


def _cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return "–"
    return "failed" if "failed" in row else f"{row['seconds']:.1f} s, {row['peak_mib']:,.0f} MiB"


def main() -> None:
    """Measures the sources and numbers that are named."""
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description=str(__doc__).partition(": ")[2])
    parser.add_argument("--sources", nargs="+", default=list(SOURCES), choices=list(SOURCES))
    parser.add_argument("--images", nargs="+", type=int, default=[1_000, 10_000, 100_000])
    given = parser.parse_args()
    rows = []
    for source in given.sources:
        for n in given.images:
            with tempfile.TemporaryDirectory() as below:
                for row in measured(source, n, Path(below)):
                    rows.append(row)
                    print(json.dumps(row), flush=True)
    from bench.machine import processor  # it imports torch, and a child's peak memory counts from its parent's

    print(f"\nOn {processor()}\n\n{table(rows)}")


if __name__ == "__main__":
    main()

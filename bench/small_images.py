"""Small drawn images, as many as requested, in a folder, in shards or in Parquet: what `bench.scale` measures with."""

import io
import itertools
import shutil
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIDE, COARSE, CLASSES, SHARD = 32, 5, 10, 10_000
DRAWN = 1_000  # images that are drawn together
COPIES = 100  # one image in so many is another one, altered


def pictures(n: int) -> Iterator[tuple[str, int, bytes]]:
    """Name, label and PNG of each: smooth colours, brighter with the label, and noise."""
    rng, before = np.random.default_rng(0), np.zeros((SIDE, SIDE, 3), np.float32)
    places = np.linspace(0, COARSE - 1, SIDE, dtype=np.float32)
    between = np.maximum(0, 1 - np.abs(places[:, None] - np.arange(COARSE)))  # linear interpolation
    for start in range(0, n, DRAWN):
        number = np.arange(start, min(start + DRAWN, n))
        coarse = (
            rng.random((len(number), COARSE, COARSE, 3), np.float32) * 156
            + 10 * (number % CLASSES)[:, None, None, None]
        )
        drawn = np.einsum("ik,jl,nklc->nijc", between, between, coarse, optimize=True)
        for place, i in enumerate(number.tolist()):
            if i % COPIES == 0:
                before = drawn[place]
            elif i % COPIES == CLASSES:  # of the same label
                drawn[place] = before[:, ::-1]
        drawn += 6 * rng.standard_normal((len(number), SIDE, SIDE, 1), np.float32)
        for i, pixels in zip(number.tolist(), np.clip(drawn, 0, 255).astype(np.uint8), strict=True):
            out = io.BytesIO()
            Image.fromarray(pixels).save(out, "PNG", compress_level=1)
            yield f"{i:06}", i % CLASSES, out.getvalue()


def folder(root: Path, n: int) -> None:
    """A sub-folder a class."""
    for name, label, content in pictures(n):
        (root / f"class{label}").mkdir(parents=True, exist_ok=True)
        (root / f"class{label}" / f"{name}.png").write_bytes(content)


def shards(root: Path, n: int) -> None:
    """Tar files of 10,000 images, each beside its label."""
    root.mkdir(parents=True)
    rest = pictures(n)
    for number in range(_last_shard(n) + 1):
        with tarfile.open(root / f"{number:02}.tar", "w") as made:
            for name, label, content in itertools.islice(rest, SHARD):
                for ending, part in (("png", content), ("cls", str(label).encode())):
                    about = tarfile.TarInfo(f"{name}.{ending}")
                    about.size = len(part)
                    made.addfile(about, io.BytesIO(part))


def _last_shard(n: int) -> int:
    return (n - 1) // SHARD


def parquet(root: Path, n: int) -> None:
    """As Hugging Face's `datasets` writes it: the files' bytes and class labels."""
    import datasets

    root.mkdir(parents=True)
    columns = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=[f"class{i}" for i in range(CLASSES)])}
    )
    made = datasets.Dataset.from_generator(_rows, features=columns, cache_dir=str(root / "cache"), gen_kwargs={"n": n})
    made.to_parquet(str(root / "train.parquet"))
    shutil.rmtree(root / "cache")


def _rows(n: int) -> Iterator[dict[str, Any]]:
    for _, label, content in pictures(n):
        yield {"image": {"bytes": content, "path": None}, "label": label}


SOURCES: dict[str, Callable[[Path, int], None]] = {"folder": folder, "shards": shards, "parquet": parquet}


def overrides(source: str, root: Path, n: int) -> list[str]:
    """The words by which tlx reads what `SOURCES` has written."""
    return {
        "folder": ["dataset=image_folder", f"dataset.root={root}"],
        "shards": ["dataset=webdataset", f"dataset.root={root}/{{00..{_last_shard(n):02}}}.tar"],
        "parquet": ["dataset=huggingface", f"dataset.root={root}"],
    }[source]

"""What `bench.counts` measures with: images of many classes, copies of a sweep's jobs, copies of a run."""

import json
import shutil
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIDE, BLOCKS, TRAIN = 16, 4, 3
# What a comparison and a list of runs read, of which a copy is made.
READ = ("config.yaml", "summary.json", "plan.json", "metrics.jsonl", "predictions.csv", "mlflow.json", "audit.json")
OF_A_RUN = ("metrics", "latest_metrics", "params", "tags")  # tables of MLflow with a row for each of a run's


def classes(below: Path, n: int) -> None:
    """A folder `data` of `n` classes: three training images and a test image of each, of 16 × 16 pixels."""
    colours = np.random.default_rng(0).random((n, BLOCKS, BLOCKS, 3)) * 200
    noise, whole = np.random.default_rng(1), np.ones((SIDE // BLOCKS, SIDE // BLOCKS, 1))
    for number, colour in enumerate(colours):
        for split, images in (("train", TRAIN), ("test", 1)):
            folder = below / "data" / split / f"class{number:05}"
            folder.mkdir(parents=True)
            for image in range(images):
                pixels = np.kron(colour, whole) + noise.normal(0, 20, (SIDE, SIDE, 3))
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{image}.png")


def sweep(source: Path, target: Path, n: int) -> None:
    """A sweep's folder with `n` jobs, copied from those of another, each with a learning rate of its own."""
    book = json.loads((source / "sweep.json").read_text(encoding="utf-8"))
    known, made = list(book["jobs"].values()), {}
    for i in range(n):
        job = known[i % len(known)]
        key, rate = f"{i:08x}{job['key'][8:]}", f"{1e-6 * (i + 1):g}"
        folder = f"{job['folder'][:-8]}{i:08x}"
        _copied(source / job["folder"], target / folder, {"identity": key, "requested": {"training.lr": rate}}, rate)
        made[key] = {**job, "key": key, "folder": folder, "name": f"training.lr={rate}"}
    written = json.dumps({**book, "jobs": made, "name": target.name}, indent=1)
    (target / "sweep.json").write_text(written, encoding="utf-8")


def runs(output: Path, n: int) -> None:
    """Copies of the one run of an output folder, `n` with it, also in MLflow's database; features for each tenth."""
    source = next(output.glob("20*/*/summary.json")).parent
    namespace = next(place for place in (output / "features").iterdir() if len(place.name) == 40)
    block = min(namespace.iterdir(), key=lambda place: (place / "rows.bin").stat().st_size)
    for i in range(n // 10):
        shutil.copytree(block, output / "features" / f"{i:040x}" / block.name)
    id_before = json.loads((source / "summary.json").read_text(encoding="utf-8"))["mlflow_run_id"]
    ids = [f"{i:032x}" for i in range(1, n)]
    for i, identity in enumerate(ids):
        place = output / f"2020-{1 + i % 100 // 28:02}-{1 + i % 28:02}" / f"{i:05}-{source.name}"
        _copied(source, place, {"identity": f"{i:064x}", "mlflow_run_id": identity, "began": 1.6e9 + i})
    with sqlite3.connect(output / "mlflow.db") as database:
        _in_mlflow(database, id_before, ids)


def _copied(source: Path, target: Path, changed: dict[str, Any], rate: str = "") -> None:
    """What is read of a run, with other values in its summary and another learning rate in its configuration."""
    target.mkdir(parents=True)
    for name in (name for name in READ if (source / name).is_file()):
        shutil.copyfile(source / name, target / name)
    if (source / "model" / "model.json").is_file():
        (target / "model").mkdir()
        shutil.copyfile(source / "model" / "model.json", target / "model" / "model.json")
    summary = json.loads((source / "summary.json").read_text(encoding="utf-8"))
    requested = {**summary.get("requested", {}), **changed.pop("requested", {})}
    (target / "summary.json").write_text(json.dumps({**summary, **changed, "requested": requested}, indent=1))
    if rate:
        lines = (source / "config.yaml").read_text(encoding="utf-8").splitlines()
        lines = [f"  lr: {rate}" if line.startswith("  lr:") else line for line in lines]
        (target / "config.yaml").write_text("\n".join(lines), encoding="utf-8")


def _in_mlflow(database: sqlite3.Connection, source: str, ids: Sequence[str]) -> None:
    """Copies the rows of a run in MLflow's tables."""
    for table in ("runs", *OF_A_RUN):
        names = [row[1] for row in database.execute(f"pragma table_info({table})")]
        key = "run_uuid"
        own = [name for name in names if name != key]
        rows = database.execute(f"select {', '.join(own)} from {table} where {key} = ?", (source,)).fetchall()
        marks = ", ".join("?" * len(names))
        into = f"insert into {table} ({key}, {', '.join(own)}) values ({marks})"
        database.executemany(into, ((identity, *row) for identity in ids for row in rows))

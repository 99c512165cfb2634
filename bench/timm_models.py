"""python -m bench.timm_models --out FOLDER: models of timm drawn at random, each trained in three ways.

Of all models of timm with at most --most million parameters, --models are drawn by --seed. Each, with random weights
and its own input size, goes through strategy=feature_extraction, finetune and full: plan, one epoch of each phase,
save, open, predict. A few drawn images will do. Small models come first. What has been tried is not tried again: a row
of FOLDER/rows.jsonl each, so that it may be stopped, and goes on after a model that ends the process. --plan builds and
cuts each network and plans strategy=finetune, and trains nothing: a second or two each. Prints Markdown.
"""

import argparse
import json
import os
import random
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bench.runner import process
from bench.works import python

STRATEGIES = ("feature_extraction", "finetune", "full")
IMAGES = {"train": 2, "val": 1, "test": 1}  # of each of two classes
SIDE = 96


def main(argv: Sequence[str] | None = None) -> int:
    """Draws, tries what has not been tried, prints; 1 if a model was refused."""
    parser = argparse.ArgumentParser(prog="python -m bench.timm_models", description=str(__doc__).partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="of results and runs")
    parser.add_argument("--models", type=int, default=100, metavar="N", help="how many (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the draw (default: %(default)s)")
    parser.add_argument(
        "--most", type=float, default=100, metavar="M", help="million parameters (default: %(default)s)"
    )
    parser.add_argument("--again", nargs="+", default=[], metavar="NAME", help="models to try once more, or: refused")
    parser.add_argument("--plan", action="store_true", help="only plan; in a FOLDER of its own")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)  # the process that tries
    given = parser.parse_args(argv)
    given.out = given.out.absolute()
    given.out.mkdir(parents=True, exist_ok=True)
    if given.here:
        _try_all(given.out, plan=given.plan)
        return 0
    (given.out / "drawn.json").write_text(json.dumps(drawn(given.out, given.models, given.seed, given.most)))
    _forget(given.out, given.again)
    words = ["-m", "bench.timm_models", "--out", str(given.out), "--here", *(["--plan"] if given.plan else [])]
    while waiting := _waiting(given.out):
        done = process(python(words))
        left = _waiting(given.out)
        if left and (done.code or len(left) == len(waiting)):  # the first of them has ended the process
            _add(given.out, {"name": left[0]["name"], **dict.fromkeys(STRATEGIES, f"process ended: {done.error}")})
    print(table(given.out))
    return int(any(_refused(row) for row in rows(given.out)))


def drawn(out: Path, number: int, seed: int, most: float) -> list[dict[str, Any]]:
    """Names and parameters, the smallest first; what was counted the last time is not counted again."""
    import timm
    import torch

    names = timm.list_models()
    random.Random(seed).shuffle(names)
    known = out / "parameters.json"
    sizes: dict[str, int] = json.loads(known.read_text()) if known.is_file() else {}
    found: list[dict[str, Any]] = []
    for name in names:
        if len(found) == number:
            break
        if name not in sizes:
            with torch.device("meta"):
                try:
                    sizes[name] = sum(p.numel() for p in timm.create_model(name).parameters())
                except (RuntimeError, NotImplementedError):  # it computes with numbers while it is built
                    sizes[name] = -1
            if sizes[name] < 0:
                sizes[name] = sum(p.numel() for p in timm.create_model(name).parameters())
        if sizes[name] <= 1e6 * most:
            found.append({"name": name, "parameters": sizes[name]})
    known.write_text(json.dumps(sizes))
    return sorted(found, key=lambda one: one["parameters"])


def rows(out: Path) -> list[dict[str, Any]]:
    """What has been tried of what is drawn: a text for each strategy, empty where all went well."""
    names = {one["name"] for one in json.loads((out / "drawn.json").read_text())}
    file = out / "rows.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    found = {row["name"]: row for row in map(json.loads, lines)}
    return [row for name, row in found.items() if name in names]


def table(out: Path) -> str:
    """Markdown: how many went through, and what did not and why."""
    found = rows(out)
    good = [row for row in found if not _refused(row)]
    cut = [row for row in found if row.get("stages", 0) > 2]
    tried = [name for name in STRATEGIES if any(name in row for row in found)]
    lines = [
        f"{len(good)} of {len(found)} models went through all of {', '.join(tried)}; {len(cut)} have stages.",
        "",
        f"| model | parameters | stages | last | {' | '.join(tried)} |",
        "|---|---:|---:|---:|" + "---|" * len(tried),
    ]
    for row in found:
        if _refused(row):
            cells = [(row.get(name) or "well").replace("|", "/") for name in tried]
            facts = [f"{row.get(key, 0):,}" for key in ("parameters", "stages", "last")]
            lines.append(f"| {row['name']} | {' | '.join(facts)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _refused(row: dict[str, Any]) -> bool:
    return any(row.get(name) for name in STRATEGIES)


def _waiting(out: Path) -> list[dict[str, Any]]:
    done = {row["name"] for row in rows(out)}
    return [one for one in json.loads((out / "drawn.json").read_text()) if one["name"] not in done]


def _forget(out: Path, again: Sequence[str]) -> None:
    kept = [row for row in rows(out) if row["name"] not in again and not ("refused" in again and _refused(row))]
    (out / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")


def _add(out: Path, row: dict[str, Any]) -> None:
    with (out / "rows.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def _try_all(out: Path, *, plan: bool) -> None:
    """Tries what has not been tried, in this process."""
    os.chdir(out)
    images = _images(out / "images")
    for one in _waiting(out):
        began = time.perf_counter()
        words = [
            "backbone=timm", f"backbone.name={one['name']}", "backbone.weights=none", "dataset=image_folder",
            f"dataset.root={images}", "dataset.audit=off", "training.batch_size=2", "training.epochs=1",
            "tracking=none", f"output={out / 'runs'}", "resume=never",
        ]  # fmt: skip
        row = {**one, **dict(_planned(words) if plan else _tried(words, images))}
        row["seconds"] = round(time.perf_counter() - began, 1)
        _add(out, row)
        why = "; ".join(f"{name}: {row[name]}" for name in STRATEGIES if row.get(name))
        print(f"{row['name']}, {row.get('stages', 0)} stages, {row['seconds']} s: {why or 'well'}", flush=True)


def _planned(words: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Whether strategy=finetune can be planned, and what was found of the stages."""
    from tlx.config.compose import compose, without_hydra
    from tlx.config.validation import checked
    from tlx.core.stopwatch import Clock
    from tlx.runs.prepare import prepare

    try:
        plans = prepare(checked(without_hydra(compose([*words, "strategy=finetune"]))), Clock()).plan
    except Exception as error:  # whatever it is, it belongs into the table
        yield "finetune", f"{type(error).__name__}: {error}".splitlines()[0]
        return
    yield "finetune", ""
    yield from _stages(plans)


def _stages(plans: Sequence[dict[str, Any]]) -> Iterator[tuple[str, int]]:
    stages = plans[-1]["stages"]
    yield "stages", len(stages)
    yield "last", sum(stage["learns"] for stage in stages[:-1])


def _tried(common: Sequence[str], images: Path) -> Iterator[tuple[str, Any]]:
    """What the three strategies make of a model, and what was found of its stages."""
    import tlx

    for strategy in STRATEGIES:
        words = [*common, f"strategy={strategy}"]
        if strategy == "finetune":
            words.append("strategy.phases.probe.epochs=1")
        try:
            summary = tlx.run(words)
            predictions = tlx.load(summary.folder).predict([next((images / "test").rglob("*.png"))])
        except Exception as error:  # whatever it is, it belongs into the table
            yield strategy, f"{type(error).__name__}: {error}".splitlines()[0]
            continue
        good = summary.status in ("finished", "diverged") and list(predictions[0].probabilities) == summary.classes
        yield strategy, "" if good else f"{summary.status}: {summary.error}"
        plans = json.loads((summary.folder / "plan.json").read_text())
        if strategy == "finetune":
            yield from _stages(plans)
        shutil.rmtree(summary.folder)  # a saved model of 100 million parameters is 400 MB


def _images(root: Path) -> Path:
    rng = np.random.default_rng(0)
    for split, number in IMAGES.items():
        for label in ("bright", "dark"):
            (root / split / label).mkdir(parents=True, exist_ok=True)
            for i in range(number):
                pixels = rng.integers(0, 256, (SIDE, SIDE, 3)) // (1 + (label == "dark"))
                Image.fromarray(pixels.astype(np.uint8)).save(root / split / label / f"{i}.png")
    return root


if __name__ == "__main__":
    sys.exit(main())

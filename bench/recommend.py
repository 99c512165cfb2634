"""What `python -m tlx recommend` picks, against every candidate trained and against simple rules, at equal time.

`python -m bench.recommend FOLDER dataset=… backbone=a,b strategy=a,b [--weights BACKBONE=FILE …] [--seeds 3]` trains
every network with every strategy (what is trained already is kept in FOLDER), has `recommend` choose in a tenth of that
time with a cache of its own, and prints for each rule: its pick, its test accuracy, its regret (points below the
candidate with the best mean test accuracy, which no rule can know) with a 95 % t interval over the seeds, and its
seconds.

- largest: the network with most parameters, with lp_ft as it is.
- kNN: the network whose features' nearest neighbours are best out of fold, with finetune as it is.
- random: candidates in random order until the time of `recommend` is over, the best by validation; the mean of many
  orders.

The last three take their test accuracy and their seconds from the runs of the sweep.
"""

import argparse
import json
import random
import time
from collections.abc import Iterator, Sequence
from itertools import product
from math import sqrt
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import tlx
from bench.machine import processor
from tlx.core.atomic_files import atomic
from tlx.core.statistics import quantile

ORDERS = 500
SHARE = 0.1  # of the sweep's time, for `recommend`
Trained = dict[str, Any]


def trained(folder: Path, fixed: Sequence[str], choices: Sequence[Sequence[str]], seeds: int) -> list[Trained]:
    """Every candidate with every seed, one run each; those in the folder are not trained again."""
    file = folder / "candidates.json"
    found: list[Trained] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []
    done = {(row["backbone"], row["strategy"], row["seed"]) for row in found}
    for seed, words in product(range(seeds), choices):
        backbone, strategy = (word.partition("=")[2] for word in words[:2])
        if (backbone, strategy, seed) in done:
            continue
        began = time.monotonic()
        output = folder / "candidates" / f"{seed}-{backbone}-{strategy}"  # each computes its own features
        run = tlx.run([*fixed, *words, f"seed={seed}", f"output={output}", "tracking=none", "dataset.audit=off"])
        plan = json.loads((run.folder / "plan.json").read_text(encoding="utf-8"))
        found.append(
            {
                "backbone": backbone,
                "strategy": strategy,
                "seed": seed,
                "test": run.test_accuracy,
                "val_loss": run.val_loss,
                "seconds": time.monotonic() - began,
                "parameters": sum(stage["parameters"] for stage in plan[0]["stages"]),
            }
        )
        with atomic(file) as path:
            path.write_text(json.dumps(found, indent=1), encoding="utf-8")
    return found


def by_chance(rows: Sequence[Trained], seconds: float) -> tuple[float, float]:
    """The test accuracy that random search reaches in so many seconds, and the seconds that it takes, in the mean."""
    draws, accuracies, spent = random.Random(0), [], []
    for _ in range(ORDERS):
        order, used, tried = draws.sample([*rows], len(rows)), 0.0, list[Trained]()
        for row in order:
            if tried and used + row["seconds"] > seconds:
                break
            tried.append(row)
            used += row["seconds"]
        accuracies.append(min(tried, key=lambda row: row["val_loss"])["test"])
        spent.append(used)
    return fmean(accuracies), fmean(spent)


def rules(rows: Sequence[Trained], answer: Any, seconds: float) -> Iterator[tuple[str, str, float, float]]:
    """For each rule: its name, its pick, its test accuracy, its seconds. `rows`: the candidates of one seed."""
    yield "recommend", answer.summary["ranking"][0]["name"], answer.summary["test_accuracy"], answer.summary["seconds"]
    full = [row for row in rows if row["strategy"] == "lp_ft"]
    if full:
        largest = max(full, key=lambda row: row["parameters"])
        yield "largest", f"{largest['backbone']} lp_ft", largest["test"], largest["seconds"]
    near = {row["name"].split()[0]: row["knn_accuracy"] for row in answer.summary["ranking"] if row["knn_accuracy"]}
    tuned = {row["backbone"]: row for row in rows if row["strategy"] == "finetune" and row["backbone"] in near}
    if tuned:
        best = tuned[max(tuned, key=lambda name: near[name])]
        yield "kNN", f"{best['backbone']} finetune", best["test"], best["seconds"]
    accuracy, spent = by_chance(rows, seconds)
    yield "random", "–", accuracy, spent


def main() -> None:
    """Measures one data set and prints the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.recommend", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("overrides", nargs="+", metavar="key=value")
    parser.add_argument("--weights", action="append", default=[], metavar="BACKBONE=FILE")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--minutes", type=float, help="for recommend; default: a tenth of the sweep's")
    given = parser.parse_args()
    typed = dict(word.split("=", 1) for word in given.overrides)
    backbones, strategies = typed.pop("backbone").split(","), typed.pop("strategy").split(",")
    files = dict(word.split("=", 1) for word in given.weights)
    fixed = [f"{key}={value}" for key, value in typed.items()]
    choices = [
        [f"backbone={b}", f"strategy={s}", *([f"backbone.weights={files[b]}"] if b in files else [])]
        for b, s in product(backbones, strategies)
    ]
    given.folder.mkdir(parents=True, exist_ok=True)
    rows = trained(given.folder, fixed, choices, given.seeds)
    pairs = {(row["backbone"], row["strategy"]) for row in rows}
    means = {pair: fmean(r["test"] for r in rows if (r["backbone"], r["strategy"]) == pair) for pair in pairs}
    best = max(means, key=lambda pair: means[pair])
    print(f"{processor()}; best of {len(pairs)} candidates by mean test accuracy: {' '.join(best)}, {means[best]:.1%}")
    found = dict[str, list[tuple[str, float, float, float]]]()
    for seed in range(given.seeds):
        mine = [row for row in rows if row["seed"] == seed]
        whole = sum(row["seconds"] for row in mine)
        minutes = given.minutes or max(SHARE * whole / 60, 0.5)
        place = f"output={given.folder / f'recommend-{seed}'}"
        answer = tlx.recommend(
            [*fixed, f"backbone={','.join(backbones)}", f"seed={seed}", place, "tracking=none"],
            minutes=minutes,
            weights=files,
        )
        top = next(row["test"] for row in mine if (row["backbone"], row["strategy"]) == best)
        for name, pick, accuracy, seconds in rules(mine, answer, 60 * minutes):
            found.setdefault(name, []).append((pick, accuracy, 100 * (top - accuracy), seconds))
        found.setdefault("all candidates", []).append((" ".join(best), top, 0.0, whole))
    print("| rule | picks | test accuracy | mean regret, points | seconds |\n| --- | --- | ---: | ---: | ---: |")
    for name, each in found.items():
        picks = ", ".join(dict.fromkeys(pick for pick, *_ in each))
        accuracy, regret, seconds = (fmean(row[place] for row in each) for place in (1, 2, 3))
        n, regrets = len(each), [row[2] for row in each]
        around = f" ± {quantile(n - 1) * stdev(regrets) / sqrt(n):.2f}" if n > 1 else ""
        print(f"| {name} | {picks} | {accuracy:.1%} | {regret:+.2f}{around} | {seconds:.0f} |")


if __name__ == "__main__":
    main()

"""What many new layers on one pass cost: `strategy=many_heads` with all of them against one of them.

    python -m bench.many_heads FOLDER dataset=ants_bees [--rounds 9]

Runs both in turn in one process, with features that are cached in FOLDER by a first run of each, and prints the medians
of the seconds of training and of the whole run, and their ratios. Further words are those of a run.
"""

import argparse
from statistics import median

import tlx
from bench.machine import processor

PHASE = "strategy.phases.probe"
GRID = f"{PHASE}.solver"
ONE = [f"{PHASE}.epochs=1", f"{GRID}.rates=[1e-2]", f"{GRID}.decays=[0.0]", f"{GRID}.seeds=1"]


def main() -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.many_heads", description=str(__doc__).partition("\n")[0])
    parser.add_argument("folder")
    parser.add_argument("overrides", nargs="+", metavar="key=value")
    parser.add_argument("--rounds", type=int, default=9)
    given = parser.parse_args()
    fixed = [*given.overrides, "strategy=many_heads", f"output={given.folder}", "tracking=none", "dataset.audit=off"]
    ways = {"64 heads": fixed, "one head": [*fixed, *ONE]}
    seconds: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    for number in range(given.rounds + 1):
        for name, words in ways.items():
            found = tlx.run([*words, f"seed={number}"]).seconds
            if number:  # the first of each computes the features and imports what it needs
                seconds[name].append(found)
    print(f"{processor()}, medians of {given.rounds} rounds")
    print("| | training, s | whole run, s |\n| --- | ---: | ---: |")
    parts = ("training", "total")
    taken = {name: [median(row[part] for row in rows) for part in parts] for name, rows in seconds.items()}
    for name, (training, whole) in taken.items():
        print(f"| {name} | {training:.3f} | {whole:.2f} |")
    ratios = [many / one for many, one in zip(*taken.values(), strict=True)]
    print("| ratio | " + " | ".join(f"{ratio:.2f}" for ratio in ratios) + " |")


if __name__ == "__main__":
    main()

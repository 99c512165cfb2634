"""What a temperature does to the test images of whole runs: log loss and calibration error before and after it.

`python -m bench.calibration [--seeds 10] KEY=VALUE…` runs tlx with these overrides, once for each seed, and reads the
figures from the summaries. The class of an image stays the same, so that the accuracy is the same before and after.
"""

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

import tlx
from bench.machine import processor
from tlx.core.metric import of_summary


def of_run(words: Sequence[str], seed: int) -> dict[str, float]:
    """The figures of one run: those of the test images before and after the temperature, and what chance makes of the
    calibration error."""
    summary = tlx.run([*words, f"seed={seed}"])
    found = summary.calibration
    floor = next(one.value for one in of_summary(summary.to_dict()) if one.key == "test_ece_floor")
    figures = {f"{name} {when}": found[when][name] for name in ("log_loss", "ece") for when in ("before", "after")}
    return {"temperature": found["temperature"], "accuracy": summary.test_accuracy or 0.0, **figures, "floor": floor}


def lines(words: Sequence[str], seeds: int) -> Iterator[str]:
    """The report: a line for each run, and their mean."""
    yield f"{processor()}; {' '.join(words)}"
    runs = []
    for seed in range(seeds):
        runs.append(of_run(words, seed))
        if not seed:
            yield f"{'seed':>4}" + "".join(f"{name:>18}" for name in runs[0])
        yield f"{seed:>4}" + "".join(f"{value:>18.4f}" for value in runs[-1].values())
    yield "mean" + "".join(f"{np.mean([run[name] for run in runs]):>18.4f}" for name in runs[0])
    for name in ("log_loss", "ece"):
        lower = sum(run[f"{name} after"] < run[f"{name} before"] for run in runs)
        yield f"{name} is lower after the temperature in {lower} of {seeds} runs"


def main(argv: Any = None) -> None:
    """Prints the report."""
    parser = argparse.ArgumentParser(prog="python -m bench.calibration", description=str(__doc__).partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("words", metavar="KEY=VALUE", nargs="*", help="overrides of the runs")
    given = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        # Features of images that several seeds have are computed once.
        for line in lines(["tracking=none", f"output={folder}", *given.words], given.seeds):
            print(line, flush=True)


if __name__ == "__main__":
    main()

"""python -m bench.startup: what commands take whose work is cached, against `import torch`.

In a round each command runs once, in turn, in a process of its own. A first round, which is not counted, fills the
caches: features, decoded images, MLflow's database. A sweep's further job is the difference between a sweep of ten jobs
and one of two, by eight.
"""

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.predict import photograph
from bench.runner import Unmeasured, answered, process
from bench.scale import machine
from bench.works import python
from tlx.core.atomic_files import atomic
from tlx.core.errors import RequestError

TORCH = "`import torch`"
FEW, MANY = 2, 10  # jobs of the two sweeps
MODULES = "torch, torchvision, timm"


@dataclass(frozen=True)
class Command:
    """One row of the table.

    Attributes:
        words: those after `python`, in the given round (0: the first, not counted).
        ratio: at most so many times the seconds of `import torch`; None: any.
        seconds: at most so many.
    """

    words: Callable[[int], list[str]]
    ratio: float | None = None
    seconds: float | None = None


def commands(below: Path, words: Sequence[str]) -> dict[str, Command]:
    """The commands by what the table calls them; they write into `below`. `words`: of every run."""
    run = ["-m", "tlx", *words, f"output={below / 'out'}", "runtime.offline=true"]

    def fixed(*more: str) -> Callable[[int], list[str]]:
        return lambda number: list(more)

    def sweep(jobs: int, *more: str) -> Callable[[int], list[str]]:
        def rates(number: int) -> list[str]:  # none that was there before: a finished job is not run again
            of_round = (1e-3 * (1 + (20 * number + jobs + i) / 1e4) for i in range(jobs))
            return [*run, "-m", f"training.lr={','.join(f'{rate:.7f}' for rate in of_round)}", *more]

        return rates

    table = {
        TORCH: Command(fixed("-c", "import torch")),
        f"`import {MODULES}`": Command(fixed("-c", f"import {MODULES}")),
        "`--help`": Command(fixed("-m", "tlx", "--help")),
        "`predict` of one image": Command(
            fixed("-m", "tlx", "predict", str(below / "run"), str(below / "one.jpg")), 1.6
        ),
    }
    for tracking, title, ratio in (("none", "without MLflow", 2.3), ("sqlite", "with MLflow", 2.8)):
        table[f"a run {title}"] = Command(fixed(*run, f"tracking={tracking}"), ratio)
        without = fixed(*run, f"tracking={tracking}", "dataset.audit=off")
        table[f"a run {title}, without audit"] = Command(without)
    for tracking, title in (("none", "without MLflow"), ("sqlite", "with MLflow")):
        for jobs in (FEW, MANY):
            table[_sweep(jobs, title)] = Command(sweep(jobs, f"tracking={tracking}"))
    return table


def _sweep(jobs: int, title: str) -> str:
    return f"a sweep of {jobs} jobs {title}"


def prepare(below: Path, words: Sequence[str]) -> None:
    """A photograph, and the link `run` to a run with a model, in `below`.

    Raises:
        Unmeasured: the run failed.
    """
    photograph(np.random.default_rng(0)).save(below / "one.jpg", quality=90)
    done = process(python(["-m", "tlx", *words, f"output={below / 'first'}", "tracking=none", "runtime.offline=true"]))
    if done.code:
        raise Unmeasured(done.error)
    (below / "run").symlink_to(next((below / "first").rglob("summary.json")).parent)


def measured(table: Mapping[str, Command], rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Seconds of the clock and of processors of each command, a pair for each round.

    Raises:
        Unmeasured: a command failed.
    """
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in table}
    for number in range(rounds + 1):
        for name, command in table.items():
            done = process(python(command.words(number)))
            if done.code:
                raise Unmeasured(f"{name}: {done.error}")
            print(f"round {number}: {name}: {done.wall:.2f} s, {done.busy:.2f} s", file=sys.stderr, flush=True)
            if number:
                found[name].append((done.wall, done.busy))
    return found


def markdown(table: Mapping[str, Command], found: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """The table. Ratios are medians of the rounds' ratios: what else the machine does meets both sides of one."""
    lines = [
        "| | seconds | of processors | against `import torch` | of processors | required |",
        "|---|---:|---:|---:|---:|---|",
    ]
    base = found[TORCH]
    rows = {name: (table[name], pairs) for name, pairs in found.items()}
    for title in ("without MLflow", "with MLflow"):
        few, many = _sweep(FEW, title), _sweep(MANY, title)
        if few in found and many in found:
            each = [
                tuple((b - a) / (MANY - FEW) for a, b in zip(*pair, strict=True))
                for pair in zip(found[few], found[many], strict=True)
            ]
            rows[f"a sweep's further job {title}"] = (Command(list, seconds=1.0), each)  # type: ignore[assignment,arg-type]
    for name, (command, pairs) in rows.items():
        wall, busy = (statistics.median(side) for side in zip(*pairs, strict=True))
        ratios = [
            statistics.median(one[side] / torch[side] for one, torch in zip(pairs, base, strict=True))
            for side in (0, 1)
        ]
        required = "–"
        if command.ratio is not None:
            required = f"≤ {command.ratio:g}×, {'met' if ratios[0] <= command.ratio else 'not met'}"
        elif command.seconds is not None:
            required = f"≤ {command.seconds:.1f} s, {'met' if wall <= command.seconds else 'not met'}"
        cells = [name, f"{wall:.2f}", f"{busy:.2f}", f"{ratios[0]:.2f}×", f"{ratios[1]:.2f}×", required]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes as tlx's: 0 all well, 1 a command failed, 2 the request was wrong."""
    parser = argparse.ArgumentParser(prog="python -m bench.startup", description=str(__doc__).partition(": ")[2])
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="of the runs; default: as `python -m tlx`")
    parser.add_argument("--rounds", type=int, default=5, help="that are counted (default %(default)s)")
    parser.add_argument("--only", nargs="+", default=[""], metavar="WORD", help="rows in whose name one of these is")
    parser.add_argument(
        "--out", type=Path, default=Path("bench-results"), metavar="FOLDER", help="default: %(default)s"
    )
    given = parser.parse_args(argv)
    return answered(lambda: _table(given))


def _table(given: argparse.Namespace) -> str:
    """Measures what was requested, and writes it into files.

    Raises:
        RequestError, Unmeasured: nothing can be measured so.
    """
    if given.rounds < 1:
        raise RequestError(f"--rounds {given.rounds}: must be at least 1")
    with tempfile.TemporaryDirectory(prefix="tlx-bench-") as place:
        below = Path(place)
        table = commands(below, given.overrides)
        table = {name: one for name, one in table.items() if name == TORCH or any(w in name for w in given.only)}
        prepare(below, given.overrides)
        found = measured(table, given.rounds)
    text = f"On {machine()}; medians of {given.rounds} rounds.\n\n{markdown(table, found)}\n"
    for name, content in (("startup.md", text), ("startup.json", json.dumps(found, indent=1))):
        with atomic(given.out / name) as path:
            path.write_text(content, encoding="utf-8")
    return text.rstrip("\n")


if __name__ == "__main__":
    sys.exit(main())

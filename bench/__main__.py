"""python -m bench --ants-bees FOLDER --cifar FOLDER: measures all works, and writes a table and a chart."""

import argparse
import datetime
import importlib.util
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import runner, tables
from bench.works import BF16_LOOPS, BY_NAME, WORKS, Work
from tlx.core.atomic_files import atomic
from tlx.core.errors import RequestError, nearest

NO_UNITS = "for which this machine has no units"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        raise RequestError(f"{message.removeprefix('argument ')}; --help says more")


def options(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The arguments, checked.

    Raises:
        RequestError: a folder or a work that does not exist, no data at all, results that cannot be written.
    """
    parser = _Parser(prog="python -m bench", description=str(__doc__).partition(": ")[2], allow_abbrev=False)
    parser.add_argument("--ants-bees", type=Path, metavar="FOLDER", help="the folder that holds train/ and val/")
    parser.add_argument("--cifar", type=Path, metavar="FOLDER", help="the folder that holds cifar-10-batches-py")
    parser.add_argument("--rounds", type=int, default=3, help="how often each contender runs, in turn (default 3)")
    parser.add_argument("--only", nargs="+", metavar="NAME", help=f"some of: {', '.join(BY_NAME)}")
    whole = f"run all epochs of the loops, not {runner.SAMPLE} of them"
    parser.add_argument("--whole", action="store_true", help=whole)
    parser.add_argument(
        "--out", type=Path, default=Path("bench-results"), metavar="FOLDER", help="default: %(default)s"
    )
    given = parser.parse_args(argv)
    for option, holds in (("ants_bees", ("train", "val")), ("cifar", ("cifar-10-batches-py",))):
        folder, name = getattr(given, option), f"--{option.replace('_', '-')}"
        if folder is None:
            continue
        folder = folder.expanduser().absolute()
        if not folder.is_dir():
            raise RequestError(f"{name} {folder}: no such folder")
        for missing in [part for part in holds if not (folder / part).is_dir()]:
            raise RequestError(f"{name} {folder}: there is no folder {missing} in it")
        setattr(given, option, folder)
    if given.ants_bees is None and given.cifar is None:
        raise RequestError("nothing to measure: give --ants-bees FOLDER, --cifar FOLDER or both")
    if given.rounds < 1:
        raise RequestError(f"--rounds {given.rounds}: must be at least 1")
    for name in given.only or []:
        if name not in BY_NAME:
            raise RequestError(f"--only {name}: no such work{nearest(name, BY_NAME)}; there are {', '.join(BY_NAME)}")
    try:
        given.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RequestError(f"--out {given.out}: cannot be made: {error.strerror}") from error
    return given


def chosen(given: argparse.Namespace, machine: dict[str, Any]) -> tuple[list[Work], dict[str, str]]:
    """The works that are measured, and why other works, or loops of all of them, are not."""
    works, left_out = [], {}
    for work in WORKS:
        if given.only and work.name not in given.only:
            continue
        if work.cuda and not machine["gpu"]:
            left_out[work.name] = "needs a GPU"
        elif getattr(given, work.data.replace("-", "_")) is None:
            left_out[work.name] = f"needs --{work.data} FOLDER"
        elif work.measure == "accuracy" and len(work.contenders(machine)) < len(work.variants):
            left_out[work.name] = f"compares bf16, {NO_UNITS}"
        else:
            works.append(work)
    for loop in BF16_LOOPS if "bf16" not in machine["peak"] else ():
        if any(loop in work.loops for work in works):
            left_out[tables.NAMES.get(loop, loop)] = f"computes in bf16, {NO_UNITS}"
    return works, left_out


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """Runs everything, in turn; the content of `results.json`."""
    archs = sorted({work.arch for work in WORKS if work.arch and (not given.only or work.name in given.only)})
    print("measuring the machine", file=sys.stderr)
    machine = runner.facts(archs)
    works, left_out = chosen(given, machine)
    for name, why in left_out.items():
        print(f"{name}: left out, {why}", file=sys.stderr)
    results: dict[str, Any] = {
        "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "machine": machine,
        "rounds": given.rounds,
        "whole": given.whole,
        "works": [work.name for work in works],
        "left_out": left_out,
        "absent": {},
        "repetitions": [],
    }
    for work in works:
        taking_part = work.contenders(machine)
        absent = {name: package for name in taking_part if (package := runner.absent(work, name))}
        results["absent"][work.name] = absent
        for number in range(1 if work.measure == "accuracy" else given.rounds):
            for contender in [name for name in taking_part if name not in absent]:
                data = getattr(given, work.data.replace("-", "_"))
                figures = runner.repetition(work, contender, data, machine, whole=given.whole)
                results["repetitions"].append({"work": work.name, "contender": contender, "round": number, **figures})
                _write(given.out / "results.json", json.dumps(results, indent=1))  # what there is if it is stopped
                said = f"failed: {figures['failed']}" if "failed" in figures else tables.brief(figures)
                print(f"{work.name}, round {number + 1}: {contender}: {said}", file=sys.stderr, flush=True)
    return results


def _write(path: Path, text: str) -> None:
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes as tlx's: 0 all well, 1 a contender failed, 2 the request was wrong, 130 interrupted."""
    try:
        given = options(argv)
        results = measure(given)
        results["rows"] = tables.rows(results)
        _write(given.out / "results.json", json.dumps(results, indent=1))
        text = tables.markdown(results)
        _write(given.out / "results.md", text)
        if importlib.util.find_spec("matplotlib") is None:
            print("bench: no chart: matplotlib is not installed", file=sys.stderr)
        else:
            with atomic(given.out / "results.png") as path:
                tables.chart(results, path)
    except RequestError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    except runner.Unmeasured as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bench: interrupted; what was measured is in results.json", file=sys.stderr)
        return 130
    print(text, end="")
    return 1 if any("failed" in one for one in results["repetitions"]) else 0


if __name__ == "__main__":
    sys.exit(main())

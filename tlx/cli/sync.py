"""`python -m tlx sync RUN|all`: sends to MLflow what it has not got of a run or a sweep, from the run's own folder.

What MLflow has stays as it is: a run is found by its key, a metric has one value a step, a file one path.
"""

import argparse
import contextlib
import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tlx.cli.run_argument import output_option
from tlx.cli.subcommand import Subcommand
from tlx.comparison import comparison
from tlx.config.schema import Tracking
from tlx.core import folder_lock
from tlx.core.activity import doing
from tlx.core.atomic_files import atomic
from tlx.core.errors import RequestError, said
from tlx.reporting.log_lines import lines
from tlx.reporting.text_table import near
from tlx.runs.run_reader import content, is_run
from tlx.sweeps import sweep_manifest, sweep_summary
from tlx.sweeps.named_runs import runs_named, sweep_named
from tlx.tracking import run_facts
from tlx.tracking import tracker as tracking
from tlx.tracking.run_store import settings_of, store_beside, typed_places

if TYPE_CHECKING:
    pass

ENDED_EARLY = "the process ended early"


class Sent(NamedTuple):
    """What came of sending a run: the store, why it has not all of it ("" where it has), MLflow's id of the run, and
    what MLflow's process said."""

    uri: str = ""
    missing: str = ""
    run_id: str = ""
    said: tuple[str, ...] = ()


def _options(parser: argparse.ArgumentParser) -> None:
    """Adds its arguments."""
    parser.add_argument(
        "given",
        nargs="+",
        metavar="RUN",
        help="a run's folder, latest, a sweep's name or folder, a run's id in MLflow, or all: whatever MLflow has not "
        "got; tracking.uri=… beside it sends it to another server, or gives a password again",
    )
    output_option(parser)


def _main(given: argparse.Namespace) -> int:
    """Runs the subcommand and returns its exit code."""
    return sync(given.given, given.output)


SUBCOMMAND = Subcommand("sync", "send MLflow what it lacks of a run, from the run's folder", _options, _main)


def sync(runs: Sequence[str], output: str) -> int:
    """Sends runs or sweeps to MLflow and prints a line for each.

    `runs`: what names a run or a sweep (`tlx.sweeps.named_runs`), or `all`, and `key=value` of `run_store.KEYS`;
    `output`: the folder where the runs are.

    Returns:
        0, or 1 where MLflow did not take all of it.

    Raises:
        RequestError: no such run, no MLflow store, a server that does not answer.
    """
    typed = typed_places([word for word in runs if re.match(r"[\w.]+=", word)], "sync")
    words = [word for word in runs if not re.match(r"[\w.]+=", word)]
    if not words:
        raise RequestError("sync: give a run's folder, a sweep's name, or all")
    every = words == ["all"]
    folder = Path(os.path.expanduser(output)).absolute()
    places = list(_unsent(folder)) if every else list(_named(words, output))
    if not places:
        print(f"nothing to send: MLflow has all of the runs in {folder}")
    failed = False
    for place in places:
        try:
            with lines(), doing(f"sending {near(place)} to MLflow"):
                sent = send(place, settings_of(place, typed), folder)
        except RequestError as error:
            if not every:
                raise
            sent = Sent(missing=said(error))
        failed = failed or bool(sent.missing)
        if sent.missing:
            print(f"{place}: not sent: {sent.missing}", file=sys.stderr)
        else:
            print(f"{place}: MLflow ({sent.uri}) has it, run {sent.run_id}")
    return 1 if failed else 0


def _unsent(output: Path) -> Iterator[Path]:
    """The sweeps and runs of which MLflow lacks something; a sweep comes before its jobs."""
    for folder in sorted(file.parent for file in output.glob(f"sweeps/*/{sweep_manifest.FILE}")):
        if sweep_manifest.read(folder).get("mlflow_sent") is False:
            yield folder
    for pattern in ("*/*", "sweeps/*/*"):
        for file in sorted(output.glob(f"{pattern}/{run_facts.FILE}")):
            if run_facts.facts(file.parent).get("sent") is False:
                yield file.parent


def _named(words: Sequence[str], output: str) -> Iterator[Path]:
    """The folders that words stand for, a sweep before its jobs; jobs that have not begun are left out."""
    for word in words:
        place = sweep_named([word], output)
        if place is not None:
            yield place
        yield from (folder.absolute() for folder in runs_named([word], output) if is_run(folder))


def send(folder: Path, settings: Tracking, output: Path) -> Sent:
    """Sends MLflow what it has not got of a run or a sweep; what came of it.

    `output`: the folder whose store is used where none lies beside the run.

    Raises:
        RequestError: no MLflow store, a server that does not answer, or another process works on the run.
    """
    tracker = tracking.open(settings, store_beside(folder, output))
    if (folder / sweep_manifest.FILE).is_file():
        _complete_sweep(folder)
        tracker.start(folder, shared=True)
        why = tracker.finish(ENDED_EARLY)
        (folder / run_facts.LOCK).unlink(missing_ok=True)
        sweep_manifest.write(folder, {"mlflow_sent": not why, "mlflow_run_id": tracker.run_id})
        return Sent(tracker.uri, why, tracker.run_id)
    with folder_lock.alone(folder):
        known = run_facts.facts(folder)
        run_facts.remember(folder, key=_key(folder), began=known.get("began", folder.stat().st_mtime))
        tracker.start(folder)
        why = tracker.finish(ENDED_EARLY)
        run_facts.remember(folder, sent=not why, reason=why, run_id=tracker.run_id)
        summary = folder / "summary.json"
        if summary.is_file() and tracker.run_id:
            with atomic(summary) as path:
                whole = {**content(summary, dict), "mlflow_run_id": tracker.run_id}
                path.write_text(json.dumps(whole, indent=1, ensure_ascii=False), encoding="utf-8")
    for lock in (folder_lock.LOCK, run_facts.LOCK):
        (folder / lock).unlink(missing_ok=True)
    return Sent(tracker.uri, why, tracker.run_id, tuple(tracker.said))


def _complete_sweep(folder: Path) -> None:
    """Adds to the file of a sweep that was killed, or is of an earlier version, what its finished jobs found."""
    book = sweep_manifest.read(folder)
    known: dict[str, Any] = {}
    if not (folder / "study.db").exists():
        jobs = [folder / job["folder"] for job in book["jobs"].values()]
        with contextlib.suppress(RequestError):  # nothing of it is finished
            known |= sweep_summary.tracked(comparison.compared(jobs))
    if "status" not in book:
        known["status"] = "finished" if "metrics" in known or (folder / "study.db").exists() else "failed"
    sweep_manifest.write(folder, known)


def _key(folder: Path) -> str:
    """The run's name for good; of a run from before it was written down, a digest of its configuration and folder."""
    known = run_facts.facts(folder).get("key")
    config = folder / "config.yaml"
    return str(known) if known else sha256(folder.name.encode() + config.read_bytes()).hexdigest()[:32]

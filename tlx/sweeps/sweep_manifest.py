"""A sweep's own file: its jobs, what was typed for each, and its MLflow run."""

import json
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from tlx.config.identity import results
from tlx.config.key_names import own, typed
from tlx.core.atomic_files import atomic
from tlx.core.errors import RequestError, shown
from tlx.core.trees import flat

if TYPE_CHECKING:
    from tlx.sweeps.sweep_plan import Planned

FILE = "sweep.json"
VERSION = 1


def no_clash(folder: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """A sweep varies some values, and may be widened; what it has never varied must be what it was."""
    before, now = [job["values"] for job in old.values()], [job["values"] for job in new.values()]
    if not old or old.keys() & new.keys():
        return
    differing = {}
    for name in sorted({*before[0], *now[0]}):
        was, are = {json.dumps(v.get(name)) for v in before}, {json.dumps(v.get(name)) for v in now}
        if len(was) == len(are) == 1 and was != are:
            differing[name] = f"{typed(name)} was {was.pop()} there and is {are.pop()} here"
    if differing:
        raise RequestError(
            f"sweep.name={folder.name}: holds another sweep: {differing[own(differing)[0]]}; "
            f"take another name, or remove {folder}"
        )


def entries(jobs: Sequence["Planned"]) -> dict[str, Any]:
    return {j.key: {**facts(j), "values": dict(flat(results(j.config)))} for j in jobs}


def facts(job: "Planned") -> dict[str, Any]:
    return {
        "key": job.key,
        "overrides": [shown(override) for override in job.overrides],
        "command": job.command,
        "folder": job.folder,
        "name": job.name,
    }


def read(folder: Path) -> dict[str, Any]:
    path = folder / FILE
    try:
        book: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        version = book["version"]
        if version == VERSION:
            book["jobs"].items(), book["mlflow_key"]
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise RequestError(
            f"{path}: cannot be read ({' '.join(str(error).split())}); take another sweep.name"
        ) from error
    if version != VERSION:
        raise RequestError(f"{path}: of version {version}, this tlx reads {VERSION}; take another sweep.name")
    return book


def write(folder: Path, facts: Mapping[str, Any], jobs: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Adds to the sweep's file what is known, whoever else does so at the same time."""
    with FileLock(folder / ".lock"):
        book: dict[str, Any] = {"version": VERSION, "mlflow_key": uuid.uuid4().hex, "jobs": {}}
        if (folder / FILE).is_file():
            book = read(folder)
        book = {**book, **facts, "jobs": {**book["jobs"], **(jobs or {})}}
        with atomic(folder / FILE) as temporary:
            temporary.write_text(json.dumps(book, indent=1, default=str), encoding="utf-8")
    return book

"""The state of a run's folder: is the run finished, can it go on, is it still what is requested?"""

import contextlib
import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tlx.config import identity as identity_module
from tlx.config.dataset_schema import PLACES
from tlx.config.identity import from_tree, key, results
from tlx.config.schema import Config
from tlx.core.errors import RequestError
from tlx.core.stopwatch import Clock
from tlx.runs.output_layout import output
from tlx.runs.prepare import Job, identify, network, prepare
from tlx.runs.run_recorder import Record
from tlx.training import checkpoint


def finished(folder: Path) -> dict[str, Any] | None:
    """The summary of the run in `folder` where it is through: measured, saved, and MLflow has it all. Else None."""
    file = folder / "summary.json"
    whole = file.is_file() and all((folder / "model" / name).is_file() for name in ("model.json", "model.safetensors"))
    if not whole or (folder / checkpoint.FILE).exists():
        return None
    summary: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return summary if summary["status"] == "finished" else None


def diverged(folder: Path) -> str:
    """Why the run in `folder` ended with the model of an epoch before its loss was no number; "" for any other run.

    It would end so again.
    """
    file = folder / "summary.json"
    found = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return str(found["error"]) if found.get("status") == "diverged" else ""


def unchanged(config: Config, done: Mapping[str, Any], folder: Path) -> None:
    """Whether the finished run in `folder`, whose summary is `done`, is what the configuration requests today.

    It may be requested on another machine than it ran on: a login node has no GPU.

    Raises:
        RequestError: the images or the weights are others.
    """
    import torch

    here = dataclasses.replace(config, runtime=dataclasses.replace(config.runtime, device="cpu"))
    job = prepare(here, Clock())
    if done["source"] is not None:
        if not Path(done["source"]).is_dir():  # what it began with is no more to be seen
            return
        backbone = dataclasses.replace(config.backbone, weights=done["source"])
        net, _ = network(here, backbone, len(job.data.classes), job.device)
        job = dataclasses.replace(job, net=net)
    ran = torch.device(done["device"] if done["device"] in ("cpu", "mps") else "cuda")
    job = dataclasses.replace(job, config=config, device=ran, precision=done["precision"])
    if identify(job) != done["identity"]:
        made_of = json.loads((folder / "model" / "model.json").read_text(encoding="utf-8"))["data"]
        before = {"identity": done["identity"], "config": dataclasses.asdict(config), "data": made_of["fingerprint"]}
        same(before, config, job, "", folder)


def claimed(record: Record, config: Config, job: Job, identity: str, resume: bool) -> dict[str, Any] | None:
    """The checkpoint to go on from: of the run's own folder, or with `resume=auto` of a run of the same identity.

    Raises:
        RequestError: the configuration, the data or the weights are others than when it was made; the run to resume has
            ended in another process since it was looked at.
    """
    if resume and (record.folder / checkpoint.FILE).is_file():
        return same(record.claim(record.folder), config, job, identity, record.folder)
    if resume and not record.within_sweep:
        raise RequestError(f"{record.folder}: the run has ended meanwhile; there is nothing to resume")
    if record.within_sweep or config.resume == "never":
        return None
    requested = key(config)
    changed: tuple[dict[str, Any], Path] | None = None
    for file in sorted(output(config).glob(f"*/*/{checkpoint.FILE}"), reverse=True):
        folder = file.parent
        if folder.parent.name == "sources":  # those are gone on with by the runs that need them
            continue
        with contextlib.suppress(RequestError):  # another process works there, or it cannot be used
            state = checkpoint.read(folder)
            if state["identity"] == identity:
                return record.claim(folder)
            if changed is None and key(from_tree(state["config"])) == requested:
                changed = state, folder
    if changed is not None:
        same(changed[0], config, job, identity, changed[1])
    return None


def same(before: dict[str, Any], config: Config, job: Job, identity: str, folder: Path) -> dict[str, Any]:
    if before["identity"] == identity:
        return before
    what = identity_module.differences(_compared(from_tree(before["config"])), _compared(config))
    if not what and before["data"] != job.data.fingerprint:
        what = [
            f"the images have changed (their fingerprint was {before['data'][:12]}, is {job.data.fingerprint[:12]})"
        ]
    what = what or ["the weights that it starts from, the stages that last stands for, or the device have changed"]
    raise RequestError(f"{folder}: cannot resume this run: {'; '.join(what[:3])}; start a new one for that")


def _compared(config: Config) -> dict[str, Any]:
    """The keys that can change the result, without the places of data and weights: their contents count."""
    tree = results(config)
    tree["backbone"].pop("weights")
    for dataset in (tree["dataset"], tree["source"]["dataset"]):
        if dataset is not None:
            for place in PLACES:
                dataset["reader"].pop(place, None)
    return tree

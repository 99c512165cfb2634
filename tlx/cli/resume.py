"""`python -m tlx resume`: resumes an interrupted run, in the same folder and the same MLflow run."""

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tlx.cli.next_command import show_use
from tlx.cli.run_argument import output_option
from tlx.cli.subcommand import Subcommand
from tlx.config import identity, tracking_uri
from tlx.config.identity import from_tree
from tlx.core.device import import_from_here
from tlx.core.errors import RequestError, empty, shown
from tlx.core.yaml_trees import read_yaml
from tlx.distributed import launch
from tlx.runs.output_layout import output
from tlx.sweeps.named_runs import begun
from tlx.training import checkpoint

# What may be given again, because it does not change the run: key → where a configuration's tree has it.
PLACES = {
    "dataset.root": ("dataset", "reader", "root"),
    "dataset.images": ("dataset", "reader", "images"),
    "source.dataset.root": ("source", "dataset", "reader", "root"),
    "source.dataset.images": ("source", "dataset", "reader", "images"),
    "backbone.weights": ("backbone", "weights"),
}
URI = "tracking.uri"  # MLflow's address, where its password is needed again


def _options(parser: argparse.ArgumentParser) -> None:
    """Adds its arguments."""
    parser.add_argument(
        "run", metavar="RUN", help="the run's folder, latest (the one that began last), or its id in MLflow"
    )
    output_option(parser)
    parser.add_argument(
        "overrides",
        metavar="key=value",
        nargs="*",
        help=f"where its data, weights or MLflow are now: {', '.join([*PLACES, URI])}",
    )


def _main(given: argparse.Namespace) -> int:
    """Runs the subcommand and returns its exit code."""
    named = begun(given.run, given.output)
    if named.why:
        print(named.why, file=sys.stderr)
    return resume(str(named.folder), given.overrides)


SUBCOMMAND = Subcommand("resume", "resume an interrupted run where it stopped", _options, _main)


def resume(run: str, overrides: Sequence[str]) -> int:
    """Goes on with the run in a folder, prints what it found and returns 0.

    `overrides`: `key=value` of `PLACES` and `tracking.uri`, where these have moved.

    Raises:
        RequestError: no such run, it is finished or diverged, another key, data or weights are not there.
    """
    folder = Path(os.path.expanduser(run)).absolute()
    if not folder.is_dir():
        raise RequestError(f"{run}: no such folder; resume takes the folder of a run")
    from tlx.reporting.run_display import closing
    from tlx.runs import run as job
    from tlx.runs import run_state

    if run_state.finished(folder):
        raise RequestError(f"{run}: this run is finished; there is nothing to resume")
    if why := run_state.diverged(folder):
        raise RequestError(f"{run}: this run diverged, and would again; start a new one: {why}")
    state = checkpoint.read(folder)
    _as_it_was(folder, state["config"])
    moved = _moved(overrides)
    uri = moved.pop(URI, None)
    if Path(state["cwd"]).is_dir():
        os.chdir(state["cwd"])
    elif not moved and _relative(state["config"]):
        raise RequestError(
            f"{run}: was started in {state['cwd']}, which is no more; its paths begin there, or here where you "
            "give those that have moved, as in dataset.root=FOLDER"
        )
    import_from_here()
    for key, place in moved.items():
        _put(state["config"], key, place)
    config = from_tree(state["config"])
    if not folder.is_relative_to(output(config)):  # the runs have moved, and with them MLflow's store and the features
        config.output = str(folder.parents[1])
    _there(run, state["config"])
    config.tracking.uri = uri or config.tracking.uri
    if config.tracking.uri is not None:
        config.tracking.uri = tracking_uri.hidden(config.tracking.uri)
    summary = job.run(config, folder, command=state["command"], name=state["name"], resume=True)
    if launch.writes():
        closing(summary)
        show_use(summary.folder)
    return 0


def _moved(words: Sequence[str]) -> dict[str, str]:
    """The places that were typed, absolute: a key that says where something lies → where it is now.

    Raises:
        RequestError: another key, or an empty value.
    """
    moved = {}
    for word in words:
        key, _, value = word.partition("=")
        if key not in (*PLACES, URI):
            raise RequestError(
                f"unrecognized arguments: {word}; a run keeps its configuration; resume takes "
                f"only where its data, weights and MLflow are ({', '.join([*PLACES, URI])})"
            )
        if not value:
            raise empty(key)
        moved[key] = value if key == URI else str(Path(os.path.expanduser(value)).absolute())
    return moved


def _parent(tree: Mapping[str, Any], key: str) -> dict[str, Any] | None:
    """The node of a configuration's tree that has a place, or None where the run has no such thing."""
    node: Any = tree
    for step in PLACES[key][:-1]:
        node = node.get(step) if isinstance(node, Mapping) else None
    return node if isinstance(node, dict) and PLACES[key][-1] in node else None


def _put(tree: Mapping[str, Any], key: str, place: str) -> None:
    parent = _parent(tree, key)
    if parent is None:
        raise RequestError(f"{key}={place}: this run has no such key; its data is drawn, or it has no source task")
    parent[PLACES[key][-1]] = place


def _relative(tree: Mapping[str, Any]) -> bool:
    """Whether a place of data or weights begins in the folder in which the run was started."""
    places = ((_parent(tree, key) or {}).get(path[-1]) for key, path in PLACES.items())
    named = (str(place) for place in places if place not in (None, "imagenet", "none"))
    return any(not os.path.isabs(os.path.expanduser(place)) for place in named)


def _there(run: str, tree: Mapping[str, Any]) -> None:
    """Whether what the run begins with is where it says.

    Raises:
        RequestError: it is not; the message says how to give the new place.
    """
    for key, path in PLACES.items():
        value = (_parent(tree, key) or {}).get(path[-1])
        if value not in (None, "imagenet", "none") and not os.path.exists(os.path.expanduser(str(value))):
            raise RequestError(
                f"{key}={value}: is not there; where it has moved: python -m tlx resume {run} {key}=PLACE"
            )


def _as_it_was(folder: Path, tree: dict[str, object]) -> None:
    """Somebody may have written into the run's `config.yaml` to change it: that would be another run."""
    path = folder / "config.yaml"
    if not path.is_file():
        return
    try:
        found = read_yaml(path)
        # It has no passwords in it.
        before = json.loads(shown(json.dumps(tree)))
        for key, place in PLACES.items():  # said anew each time
            if (one := _parent(before, key)) is not None and (two := _parent(found, key)) is not None:
                one[place[-1]] = two[place[-1]]
        differing = identity.differences(before, found)
    except (yaml.YAMLError, UnicodeDecodeError, AttributeError, RecursionError) as error:
        raise RequestError(f"{path}: cannot be read ({' '.join(str(error).split())})") from error
    if differing:
        raise RequestError(
            f"{path}: {'; '.join(differing[:3])}; a run keeps its configuration: start a new one for that"
        )

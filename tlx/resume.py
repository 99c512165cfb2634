"""The verb `resume`: an interrupted run goes on where it stopped, in the same folder and the same MLflow run."""

import argparse
import json
import os
from pathlib import Path

import yaml

from tlx import checkpoint, ledger, rank_processes, tracking_uri
from tlx.config import from_tree
from tlx.errors import RequestError, shown


def options(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    parser.add_argument("run", metavar="RUN", help="the folder of the run")
    parser.add_argument(
        "overrides", nargs="*", metavar="tracking.uri=…", help="MLflow's address, where its password is needed again"
    )


def main(given: argparse.Namespace) -> int:
    """Goes on with the run, and prints what it found."""
    folder = Path(os.path.expanduser(given.run)).absolute()
    if not folder.is_dir():
        raise RequestError(f"{given.run}: no such folder; resume takes the folder of a run")
    if (folder / ledger.FILE).is_file():
        raise RequestError(f"{given.run}: a sweep; type its command again, and it goes on where it stopped")
    from tlx import job, standing
    from tlx.display import closing

    if standing.finished(folder):
        raise RequestError(f"{given.run}: this run is finished; there is nothing to go on with")
    if why := standing.diverged(folder):
        raise RequestError(f"{given.run}: this run diverged, and would again; start a new one: {why}")
    state = checkpoint.read(folder)
    _as_it_was(folder, state["config"])
    if not Path(state["cwd"]).is_dir():
        raise RequestError(f"{given.run}: was started in {state['cwd']}, which is no more; its paths begin there")
    os.chdir(state["cwd"])
    config = from_tree(state["config"])
    for word in given.overrides:
        key, _, value = word.partition("=")
        if key != "tracking.uri":
            raise RequestError(f"{word}: a run goes on as it began; resume takes tracking.uri only")
        config.tracking.uri = value
    if config.tracking.uri is not None:
        config.tracking.uri = tracking_uri.hidden(config.tracking.uri)
    summary = job.run(config, folder, command=state["command"], name=state["name"], resume=True)
    if rank_processes.writes():
        closing(summary)
    return 0


def _as_it_was(folder: Path, tree: dict[str, object]) -> None:
    """Somebody may have written into the run's `config.yaml` to change it: that would be another run."""
    path = folder / "config.yaml"
    if not path.is_file():
        return
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
        # It has no passwords in it.
        differing = checkpoint.differences(json.loads(shown(json.dumps(tree))), found)
    except (yaml.YAMLError, UnicodeDecodeError, AttributeError, RecursionError) as error:
        raise RequestError(f"{path}: cannot be read ({' '.join(str(error).split())})") from error
    if differing:
        raise RequestError(f"{path}: {'; '.join(differing[:3])}; a run goes on as it began: start a new one for that")

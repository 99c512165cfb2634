"""Runs removed from an MLflow store: their rows, artifacts and logged models.

In a database they are removed for good, as `mlflow gc` does it. A server marks them as deleted.
Part of the process that writes to MLflow: of tlx it imports `core` alone, and MLflow when it is needed.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from tlx.core.errors import reason

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from tlx.tracking.mlflow_worker.mlflow_store import MlflowStore


def removed(store: "MlflowStore", message: Mapping[str, Any]) -> str:
    """Removes what a message names; why nothing more of it was removed, "" where all is gone.

    `runs`: each a run's name for good and its id, either may be empty; `models`: ids of logged models. Nothing is
    removed where the model of a run is in the registry, unless the message has `forced`.
    """
    try:
        client = store.client()
        experiments = _experiments(client, message["experiment"])
        runs = list(dict.fromkeys(run for key, one in message["runs"] for run in _ids(client, key, one, experiments)))
        if not message["forced"] and (used := next(_registered(client, runs), "")):
            return used
        models = [*message["models"], *(model for run in runs for model in _models(client, run))]
        for run in runs:
            _remove_run(client, run)
        for model in dict.fromkeys(models):
            _remove_model(client, model)
    except Exception as error:  # whatever a store, a driver or a network raises
        return reason(error)
    return ""


def _experiments(client: "MlflowClient", name: str) -> list[str]:
    """The id of the experiment in which runs are looked up by their keys."""
    if name.startswith("id:"):
        return [name.removeprefix("id:")]
    found = client.get_experiment_by_name(name)
    return [] if found is None else [str(found.experiment_id)]


def _ids(client: "MlflowClient", key: str, known: str, experiments: Sequence[str]) -> Iterator[str]:
    """The ids of a run that are in the store: the one that its folder has, and those of its key, deleted ones too."""
    from mlflow.entities import ViewType
    from mlflow.exceptions import MlflowException

    if known:
        with contextlib.suppress(MlflowException):  # it is another store's, or was removed
            yield str(client.get_run(known).info.run_id)
    if key and experiments:
        some = client.search_runs(list(experiments), f"tags.`tlx.run` = '{key}'", ViewType.ALL)
        yield from (str(run.info.run_id) for run in some)


def _registered(client: "MlflowClient", runs: Sequence[str]) -> Iterator[str]:
    """For each model of the runs that is in the registry, a line that says so."""
    for run in runs:
        for version in client.search_model_versions(f"run_id = '{run}'"):
            yield f"its model is version {version.version} of {version.name} in MLflow's registry"


def _models(client: "MlflowClient", run: str) -> list[str]:
    """The ids of the models that a run has logged."""
    experiment = client.get_run(run).info.experiment_id
    return [str(one.model_id) for one in client.search_logged_models([experiment], f"source_run_id = '{run}'")]


def _remove_run(client: "MlflowClient", run: str) -> None:
    info = client.get_run(run).info
    if info.lifecycle_stage == "active":
        client.delete_run(run)
    if remove := _for_good(client, "_hard_delete_run"):
        _remove_artifacts(str(info.artifact_uri))
        remove(run)


def _remove_model(client: "MlflowClient", model: str) -> None:
    from mlflow.exceptions import MlflowException

    store: Any = client._tracking_client.store
    remove = _for_good(client, "_hard_delete_logged_model")
    place = str(store.get_logged_model(model, allow_deleted=True).artifact_location) if remove else ""
    with contextlib.suppress(MlflowException):  # it is deleted already
        client.delete_logged_model(model)
    if remove:
        _remove_artifacts(place)
        remove(model)


def _for_good(client: "MlflowClient", name: str) -> Any:
    """The function of the store that removes rows; None of a server."""
    return getattr(client._tracking_client.store, name, None)


def _remove_artifacts(address: str) -> None:
    """What lies there, and on this machine's disk the folder around it, which has nothing else."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    place = urlsplit(address)
    local = Path(unquote(place.path)) if place.scheme in ("", "file") else None
    if local is None or local.exists():
        repository: Any = get_artifact_repository(address)  # it is not typed
        repository.delete_artifacts()
    if local is not None:
        for folder in (local, local.parent):  # what holds something else stays
            with contextlib.suppress(OSError):
                folder.rmdir()

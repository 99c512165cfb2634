"""A run's model in MLflow: logged so that it can be loaded and served, registered, and champion by validation.

Part of the process that writes to MLflow: of tlx it imports `core` alone. What is
logged is data: an `MLmodel` that names the installed `tlx.served` as its loader, the saved model's folder beside it, no
pickle and no code.
"""

import contextlib
import csv
import io
import json
import os
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote, urlsplit

from tlx.core.statistics import exact
from tlx.tracking.mlflow_worker.model_description import NAME, describe
from tlx.tracking.mlflow_worker.prepared_views import CHOICES
from tlx.tracking.run_card import card

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel
    from mlflow.entities.model_registry import ModelVersion

ALIAS = "champion"
DATA = "tlx.data"  # a version's tag: the fingerprint of the images that it was tested on
WEIGHTS = "tlx.weights"  # a logged model's tag: the checksum of its weights, as its description has it
CHAMPION = "tlx.champion"  # a version's tag: whether it became champion, and why
VERSIONS = "mlflow.modelVersions"  # a logged model's tag: the versions that it is, as MLflow's pages list them
VALIDATION = "tlx.validation"  # another: that of the images that it was chosen by
LOSS = "val_loss"  # the figure of which less is better, and which chooses where nothing else is said
# A run's artifacts: what chooses, the figures of each epoch, the saved model's predictions for the test set.
FILES = ("summary.json", "metrics.jsonl", "predictions.csv")


def log(client: "MlflowClient", run_id: str, folder: Path) -> str:
    """Logs the saved model in `folder` as a model of the run; its id, for `models:/<id>`.

    A run that was stopped and goes on has perhaps logged it before: a whole one of the same weights stays, and what was
    not finished is removed.
    """
    from mlflow.entities import LoggedModelOutput

    run = client.get_run(run_id)
    params = {name: run.data.params[name] for name in CHOICES if name in run.data.params}
    weights = json.loads((folder / "model.json").read_text(encoding="utf-8")).get("weights", "")
    for earlier in client.search_logged_models([run.info.experiment_id], f"source_run_id = '{run_id}'"):
        if earlier.status != "READY":
            client.delete_logged_model(earlier.model_id)
        elif weights and earlier.tags.get(WEIGHTS) == weights:
            logged = run.outputs.model_outputs if run.outputs else []
            if earlier.model_id not in [output.model_id for output in logged]:
                client.log_outputs(run_id, [LoggedModelOutput(earlier.model_id, step=0)])
            _measured(client, run_id, earlier, params)
            return str(earlier.model_id)
    called = "-".join(params[name] for name in ("backbone", "strategy", "head", "dataset") if name in params) or NAME
    model = client.create_logged_model(
        run.info.experiment_id,
        re.sub(r"""[/:.%"']""", "_", called),
        run_id,
        tags={WEIGHTS: weights},
        params=params,
        model_type="classifier",
    )
    try:
        with tempfile.TemporaryDirectory() as described:
            describe(Path(described), model.model_id, run_id, sum(file.stat().st_size for file in folder.iterdir()))
            client.log_model_artifacts(model.model_id, described)
        _upload(client, model, folder)
    except BaseException:
        client.finalize_logged_model(model.model_id, "FAILED")
        raise
    client.finalize_logged_model(model.model_id, "READY")
    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
    _measured(client, run_id, model, params)
    return str(model.model_id)


def _measured(client: "MlflowClient", run_id: str, model: "LoggedModel", params: Mapping[str, str]) -> None:
    """Gives a model its run's choices and figures, as far as it lacks them: those of its test and validation images.

    They are the run's own metrics once more, to the moment, so that the run has them once.
    """
    from mlflow.entities import Metric

    if missing := {name: value for name, value in params.items() if name not in (model.params or {})}:
        client.log_model_params(model.model_id, missing)
    run = client.get_run(run_id)
    inputs = run.inputs.dataset_inputs if run.inputs else []
    data = {"dataset_name": inputs[0].dataset.name, "dataset_digest": inputs[0].dataset.digest} if inputs else {}
    known = {metric.key for metric in model.metrics or []}
    names = [name for name in run.data.metrics if re.match("(?!test_accuracy_after_)(test|best_val)_", name)]
    last = [client.get_metric_history(run_id, name)[-1] for name in names if name not in known]
    own = {"model_id": model.model_id, "run_id": run_id, **data}
    client.log_batch(run_id, [Metric(one.key, one.value, one.timestamp, one.step, **own) for one in last])


def _upload(client: "MlflowClient", model: "LoggedModel", folder: Path) -> None:
    """The saved model beside its description; on this machine's disk its weights are not there twice."""
    place = urlsplit(model.artifact_location)
    if place.scheme != "file":
        client.log_model_artifacts(model.model_id, str(folder), NAME)
        return
    target = Path(unquote(place.path)) / NAME
    target.mkdir(parents=True)
    for file in folder.iterdir():
        try:  # weights are replaced, never written into; a description may be edited
            if file.suffix != ".safetensors":
                raise OSError
            os.link(file, target / file.name)
        except OSError:  # another disk, or one that knows no links
            shutil.copy2(file, target / file.name)


def register(client: "MlflowClient", run_id: str, model_id: str, name: str, folder: Path) -> str:
    """Registers a logged model as a new version of `name`, moves the alias where validation says so; what came of it.

    `folder`: the run's. What is champion is read and written: the caller holds a lock where the store is a file. A
    server has none, and no change that depends on what was read: whoever became champion during the comparison is
    compared too, and two that write within the same moment are not.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    mlflow.set_tracking_uri(client.tracking_uri)  # where a file store looks for `models:/<id>`, and not by its client
    data = json.loads((folder / NAME / "model.json").read_text(encoding="utf-8"))["data"]
    new = _candidate(data, *(folder / file for file in FILES))
    source = f"models:/{model_id}"
    earlier = client.search_model_versions(f"name = '{name}' and run_id = '{run_id}'")
    tags = {tag: data[split] for tag, split in ((DATA, "test"), (VALIDATION, "val")) if split in data}
    known = next((version for version in earlier if version.source == source), None)
    made = known or client.create_model_version(name, source, run_id=run_id, model_id=model_id, tags=tags)
    if not made.description and (figures := card(_summary(folder))):
        client.update_model_version(name, made.version, figures)
    _named(client, model_id, {"name": name, "version": str(made.version)})
    said = made.tags.get(CHAMPION)
    if said is None:  # else a run that goes on has registered it before
        champion, verdict = _decided(client, name, new)
        if verdict.better:
            client.set_registered_model_alias(name, ALIAS, made.version)
        said = f"is {ALIAS}: {verdict.why}" if verdict.better else f"version {champion} stays {ALIAS}: {verdict.why}"
        client.set_model_version_tag(name, made.version, CHAMPION, said)
    return f"{'already ' if known else ''}registered as {name} version {made.version}, {said}"


def _summary(folder: Path) -> dict[str, Any]:
    """A run's summary; empty where there is none."""
    file = folder / FILES[0]
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else {}


def _named(client: "MlflowClient", model_id: str, version: Mapping[str, str]) -> None:
    """Lists a version on the page of its logged model, as MLflow's own registering does."""
    listed = json.loads(client.get_logged_model(model_id).tags.get(VERSIONS, "[]"))
    if version not in listed:
        client.set_logged_model_tags(model_id, {VERSIONS: json.dumps([*listed, version])})


class Candidate(NamedTuple):
    """A run whose model may become champion.

    `data`: the fingerprints of its images, and of `test` and `val` of them. `rule`: the figure of the validation images
    that chooses; `figures`: all of them by name, in the epoch whose model is kept. `table`: its table of predictions
    of the test images, "" where there is none.
    """

    data: Mapping[str, str]
    rule: str
    figures: Mapping[str, float]
    table: str


class Verdict(NamedTuple):
    """Whether a new model takes the champion's place, and why."""

    better: bool
    why: str


def _candidate(data: Mapping[str, str], summary: Path, rows: Path, predictions: Path) -> Candidate:
    """What a run's files say; of those that are missing, nothing."""
    table = predictions.read_text(encoding="utf-8") if predictions.is_file() else ""
    if not summary.is_file() or not rows.is_file():
        return Candidate(data, LOSS, {}, table)
    known = json.loads(summary.read_text(encoding="utf-8"))
    epochs = [json.loads(line) for line in rows.read_text(encoding="utf-8").splitlines()]
    best: dict[str, Any] = next((row for row in epochs if row["epoch"] == known.get("best_epoch")), {})
    figures = {name: best[name] for name in best if name.startswith("val_")}
    return Candidate(data, known.get("choose_by") or LOSS, figures, table)


def _decided(client: "MlflowClient", name: str, new: Candidate) -> tuple[str | None, Verdict]:
    """The champion's version, and whether the new model takes its place."""
    champion = client.get_registered_model(name).aliases.get(ALIAS)
    while True:
        verdict = Verdict(True, "the first one") if champion is None else _against(client, name, champion, new)
        against, champion = champion, client.get_registered_model(name).aliases.get(ALIAS)
        if champion == against or not verdict.better:
            return against, verdict


def _against(client: "MlflowClient", name: str, champion: str, new: Candidate) -> Verdict:
    """The new model against the champion: by validation, with the test images beside it."""
    from mlflow.exceptions import MlflowException

    version = client.get_model_version(name, champion)
    with tempfile.TemporaryDirectory() as folder:
        for file in FILES:
            with contextlib.suppress(MlflowException, OSError):
                client.download_artifacts(str(version.run_id), file, folder)
        old = _candidate(version.tags, *(Path(folder, file) for file in FILES))
    if not _same_validation(client, version, new.data):
        return Verdict(False, "other validation images, whose figures cannot be compared")
    if new.rule not in old.figures or new.rule not in new.figures:
        return Verdict(False, f"{new.rule} of both is not known, there is nothing to compare")
    before, after, less = old.figures[new.rule], new.figures[new.rule], new.rule == LOSS
    better = after < before if less else after > before  # of equals the champion stays
    figures = f"{after:.4f} against {before:.4f}" if less else f"{after:.1%} against {before:.1%}"
    beside = compare(old.table, new.table) if version.tags.get(DATA) == new.data["test"] else "other test data"
    return Verdict(
        better, f"{'' if better else 'not '}better by validation ({new.rule} {figures}); beside it: {beside}"
    )


def _same_validation(client: "MlflowClient", version: "ModelVersion", data: Mapping[str, str]) -> bool:
    """Whether the champion was chosen by the same images; of an earlier version, whether all of its data is."""
    if VALIDATION in version.tags and "val" in data:
        return bool(version.tags[VALIDATION] == data["val"])
    inputs = client.get_run(str(version.run_id)).inputs
    profiles = [json.loads(each.dataset.profile or "{}") for each in (inputs.dataset_inputs if inputs else [])]
    return any(profile.get("digest") == data.get("fingerprint") is not None for profile in profiles)


def compare(old: str, new: str) -> str:
    """What two models' tables of test predictions (`predictions.csv`) say, by a paired test on the same images.

    McNemar's test in its exact form: of the images that one model alone has right, each falls to either model with
    equal chance where they are equally good.
    """
    before, after = ([*csv.DictReader(io.StringIO(table))] for table in (old, new))
    if not before:
        return "its test predictions are gone"
    if _images(before) != _images(after):
        return "other test images"
    pairs = [(a["correct"] == "1", b["correct"] == "1") for a, b in zip(before, after, strict=True)]
    lost, won = pairs.count((True, False)), pairs.count((False, True))
    only = f"{won} of {len(pairs)} test images are correct in this model only, {lost} in the other only"
    return f"{only}, p = {exact(lost, won):.2g}"


def _images(table: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    """What tells test images apart where the data set lies elsewhere; their content is in the data's fingerprint.

    A quote before what looks like a formula (`cells`) is left out: tables of before have none.
    """
    return [(os.path.basename(row["file"]).lstrip("'"), row["label"].lstrip("'")) for row in table]

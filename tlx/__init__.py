"""Config-driven transfer learning.

`tlx.run(…)` trains and measures one model, `tlx.sweep(…)` every combination of several values, `tlx.recommend(…)` finds
what to train, `tlx.curve(…)` what more data would give, `tlx.extend(…)` adds images to a run, `tlx.runs(…)` lists runs,
`tlx.compare(…)` puts them side by side, `tlx.load(…)` opens a saved model.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlx.core.errors import without_causes
from tlx.core.version import __version__

if TYPE_CHECKING:
    from pandas import DataFrame

    from tlx.curves.learning_curve import LearningCurve
    from tlx.extension.extend import Extension
    from tlx.inference.predictor import Model
    from tlx.recommendation.answer import Answer
    from tlx.runs.run_summary import Summary
    from tlx.sweeps.results import Results

__all__ = ["__version__", "compare", "curve", "extend", "load", "recommend", "run", "runs", "sweep"]


@without_causes()
def run(overrides: Sequence[str] | Mapping[str, Any] = (), config_dir: str | None = None, **keys: Any) -> "Summary":
    """One run, as `python -m tlx key=value …` does it.

    `tlx.run(["strategy=finetune", "training.epochs=5"])`, `tlx.run({"strategy": "finetune", "training.epochs": 5})` and
    `tlx.run(strategy="finetune", training={"epochs": 5})` are the same.

    Args:
        overrides: `key=value` as typed on the command line, or a mapping of keys to values.
        config_dir: a folder with YAML of one's own.
        keys: more keys and values; a mapping has the keys below it.

    Raises:
        RequestError: the request is wrong; the message says how.
    """
    from tlx.config.python_overrides import as_overrides
    from tlx.runs.request import run_overrides

    return run_overrides(as_overrides(overrides, keys), config_dir)


@without_causes()
def sweep(overrides: Sequence[str] | Mapping[str, Any] = (), config_dir: str | None = None, **keys: Any) -> "Results":
    """Every combination of several values, as `python -m tlx -m key=value,value …` runs and compares them.

    `tlx.sweep(strategy=["feature_extraction", "finetune"], seeds=3)`.

    Args:
        overrides, config_dir, keys: as for `run`; a list is several choices, and so are commas in text.

    Raises:
        RequestError: the request is wrong; the message says how.
    """
    from tlx.config.python_overrides import as_overrides
    from tlx.sweeps.results import Results
    from tlx.sweeps.sweep_request import run_sweep

    outcome = run_sweep(as_overrides(overrides, keys, sweep=True), config_dir, table=False)
    return Results(outcome.runs, outcome.failed)


@without_causes()
def recommend(
    overrides: Sequence[str] | Mapping[str, Any] = (),
    config_dir: str | None = None,
    *,
    minutes: float = 10.0,
    max_parameters: float | None = None,
    max_ms: float | None = None,
    max_mb: float | None = None,
    weights: Mapping[str, str | Path] | None = None,
    download: bool = False,
    name: str | None = None,
    **keys: Any,
) -> "Answer":
    """Which network, and how much of it to train, as `python -m tlx recommend` finds it within `minutes`.

    `tlx.recommend({"dataset": "image_folder", "dataset.root": "photos"}, minutes=5)`.

    Args:
        overrides, config_dir, keys: as for `sweep`; lists of `backbone` and `strategy` are the choices.
        minutes: time for all of it, that of earlier calls with the same data and settings included.
        max_parameters, max_ms, max_mb: what a network may have, take for a prediction here, and take on disk.
        weights: a file for each backbone that has one.
        download: fetch the weights of some well-known networks.
        name: of the folder.

    Raises:
        RequestError: the request is wrong; the message says how.
    """
    import time

    began = time.monotonic()
    from tlx.config.python_overrides import as_overrides
    from tlx.recommendation.recommend import run_recommendation
    from tlx.recommendation.request import Limits, requested, words_of

    request = requested(
        as_overrides(overrides, keys, sweep=True), minutes, limits=Limits(max_parameters, max_ms, max_mb),
        weights=[f"{backbone}={file}" for backbone, file in (weights or {}).items()],
        download=download, name=name, config_dir=config_dir,
    )  # fmt: skip
    return run_recommendation(request, words_of(request), began)


@without_causes()
def curve(
    overrides: Sequence[str] | Mapping[str, Any] = (),
    config_dir: str | None = None,
    *,
    name: str | None = None,
    **keys: Any,
) -> "LearningCurve":
    """Test accuracy against the number of training images, as `python -m tlx curve` measures it.

    `tlx.curve({"dataset": "image_folder", "dataset.root": "photos"}, strategy=["linear_probe", "finetune"], seeds=3)`.

    Args:
        overrides, config_dir, keys: as for `sweep`; `dataset.per_class` or `dataset.limit.train` with a list are the
            numbers of training images.
        name: of the folder.

    Raises:
        RequestError: the request is wrong, or no run of it ended well; the message says how.
    """
    from tlx.config.python_overrides import as_overrides
    from tlx.curves.curve_request import requested
    from tlx.curves.learning_curve import run_curve

    words = as_overrides(overrides, keys, sweep=True)
    return run_curve(requested(words, name, config_dir), [*words, *(["--name", name] if name else [])])


@without_causes()
def extend(
    run: str | Path,
    overrides: Sequence[str] | Mapping[str, Any] = (),
    config_dir: str | None = None,
    *,
    output: str | Path = "outputs",
    **keys: Any,
) -> "Extension":
    """A new run on a finished run's images and more, as `python -m tlx extend` makes it.

    `tlx.extend("latest", {"dataset.root": "more_photos"})`.

    Args:
        run: as for `load`.
        overrides, config_dir, keys: the new images, as the data set of a run.
        output: the folder of the runs.

    Raises:
        RequestError: no finished run, its images are gone or are others now, or the new ones cannot be used.
    """
    from tlx.config.command_line import command
    from tlx.config.python_overrides import as_overrides
    from tlx.extension.extend import extend as run_extension
    from tlx.sweeps.named_runs import run_named

    folder, words = str(run_named(str(run), str(output)).folder), as_overrides(overrides, keys)
    if not any(word.startswith("output=") for word in words):
        words.append(f"output={output}")
    return run_extension(folder, words, command(["extend", folder, *words], config_dir), config_dir)


@without_causes()
def compare(runs: "Iterable[str | Path | Summary] | str | Path | Summary", output: str = "outputs") -> "Results":
    """Runs side by side, with paired tests, as `python -m tlx compare` does it.

    Args:
        runs: sweeps' names, sweeps' folders, runs' folders, folders that hold runs, or what `run` gave; or one of them.
        output: the folder where sweeps are looked for by name.

    Raises:
        RequestError: no such sweep or run, or none that is finished.
    """
    from tlx.sweeps.named_runs import runs_named
    from tlx.sweeps.results import Results

    words = [runs] if isinstance(runs, str | Path) or hasattr(runs, "folder") else runs
    return Results(runs_named([str(getattr(word, "folder", word)) for word in words], output))


@without_causes()
def runs(*conditions: str, output: str | Path = "outputs") -> "DataFrame":
    """The runs of an output folder as a table, newest first: `tlx.runs("dataset=shapes", "test_accuracy>0.9")`.

    Args:
        conditions: as `python -m tlx runs` takes them; keys of the configuration among them become columns.
        output: the folder of the runs.

    Raises:
        RequestError: no such folder, a word is no condition, no run has its key, or pandas is not installed.
    """
    from tlx.sweeps.run_frame import run_frame

    return run_frame(conditions, Path(output).expanduser())


list_of_runs = runs  # importing a module of the package `tlx.runs` puts the package, which calls this, in its place


@without_causes()
def load(run: str | Path, device: str = "auto", output: str = "outputs") -> "Model":
    """A saved model, ready to predict: `tlx.load("latest").predict(["photo.jpg"])`.

    Args:
        run: a run's folder, `latest`, a sweep's or a recommendation's name or folder (its chosen model), or
            a run's id in MLflow.
        device: `auto`, `cpu` or `cuda`.
        output: the folder where names are looked up.

    Raises:
        RequestError: there is no such run, or no whole model in it.
    """
    from tlx.inference.predictor import load as open_model
    from tlx.sweeps.named_runs import run_named

    return open_model(run_named(str(run), output).folder, device)

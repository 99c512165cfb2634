"""What a run is made of: the typed schema of everything with a fixed shape, its checks, and a run's identity.

Imports neither torch nor Hydra, so that a wrong value answers at once.
"""

import dataclasses
import hashlib
import inspect
import json
import pkgutil
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Any

from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from tlx.errors import RequestError, nearest

ANCHORS = ("head", "classifier", "last", "all")


@dataclass
class Backbone:
    """A network, its weights and the preprocessing that belongs to them."""

    _target_: str = MISSING  # tlx.backbones.torchvision | timm | small_cnn
    name: str = MISSING
    weights: str = "imagenet"  # imagenet | none | a file | an earlier run's folder
    url: str | None = None  # of the imagenet weights; the file's name ends in the first digits of its sha256
    licence: str = "see the model's page"
    input_size: int | None = None  # pixels; null: as the weights say
    resize: str | None = "auto"  # pixels of the short side, or squash; auto: as the weights say
    crop: str | None = "auto"  # pixels; null takes none
    mean: list[float] | None = None
    std: list[float] | None = None
    interpolation: str = "auto"
    stages: dict[str, list[str]] | None = None  # name → parts, input side first; null: found by running the model
    classifier: str = "head"  # the stage where the classifier starts
    arguments: dict[str, Any] = field(default_factory=dict)  # for the network's constructor


@dataclass
class Head:
    """The new last layers, `[N, D]` → `[N, classes]`."""

    append: bool = False  # keep the pretrained 1000-way layer and add to it
    hidden: list[int] = field(default_factory=list)
    dropout: float = 0.0


@dataclass
class Limit:
    """At most so many images of a part; null: all."""

    train: int | None = None
    val: int | None = None
    test: int | None = None


@dataclass
class Dataset:
    """What every data set has, whoever reads it; the reader's own keys are beside these in the YAML."""

    val_fraction: float = 0.2  # of the training part, where the data set has no validation part
    test_fraction: float = 0.2  # of everything, where the data set has no test part either
    limit: Limit = field(default_factory=Limit)
    per_class: int | None = None  # few-shot: training images per class
    on_error: str = "fail"  # fail | skip
    reader: dict[str, Any] = field(default_factory=dict)  # `_target_`, `name`, `root` and what the reader asks for


def _common() -> dict[str, Any]:
    """The keys of every data set, so that Hydra knows them."""
    return {name: value for name, value in dataclasses.asdict(Dataset()).items() if name != "reader"}


@dataclass
class Augmentation:
    """Random views for training: torchvision transforms of the decoded `image`, or of its evaluation `view`."""

    input: str = "view"
    transforms: list[Any] = field(default_factory=list)


@dataclass
class Phase:
    """What learns, and by which solver. What is null comes from `training` and the groups."""

    train_from: str = MISSING  # a stage, or head | classifier | last | all
    train_to: str | None = None  # the last stage that learns; null: the end
    learns: list[str] = field(default_factory=lambda: ["all"])  # all | norm | bias
    statistics: str = "learning"  # which BatchNorm statistics adapt: learning | all | none
    solver: str = "sgd"
    optimizer: Any = None
    schedule: Any = None
    epochs: int | None = None
    lr: float | None = None
    lr_decay: float = 1.0  # learning rate of a stage ÷ that of the stage after it
    batch_size: int | None = None
    patience: int | None = None


@dataclass
class Strategy:
    """An ordered set of phases."""

    phases: dict[str, Phase] = field(default_factory=dict)
    weights: str | None = None  # none: start from random weights, whatever the backbone says


@dataclass
class Training:
    """What every phase inherits."""

    epochs: int = 10
    batch_size: int = 32
    lr: float = 1e-3
    lr_factor: float = 1.0  # on the learning rate of every phase
    patience: int | None = None  # epochs without a better validation loss before a phase ends
    label_smoothing: float = 0.0
    class_weights: str | None = None  # null | balanced
    clip_norm: float | None = None
    accumulate: int = 1  # micro-batches in which a batch is computed


@dataclass
class Features:
    """How the frozen part's output is kept."""

    mode: str = "auto"  # auto | live | exact
    budget: int | None = None  # bytes; null: a share of what is free


@dataclass
class Evaluation:
    """What is measured beyond the test set before and after training."""

    after_each_phase: bool = False
    samples: Any = None  # a data set's reader whose images are drawn into the run's folder and predicted


@dataclass
class Runtime:
    """Where and how the run computes."""

    device: str = "auto"  # auto | cpu | cuda | cuda:1 | mps
    precision: str = "auto"  # auto | fp32 | bf16
    threads: str = "auto"  # a number, or auto
    workers: str = "auto"  # processes that read images; a number, or auto
    offline: bool = False  # never touch the network


@dataclass
class Tracking:
    """Where MLflow keeps the run."""

    enabled: bool = True
    uri: str | None = None  # null: sqlite:///<output>/mlflow.db
    experiment: str = "tlx"
    model: bool = True  # log the saved model's folder
    system_metrics: bool = True


@dataclass
class Source:
    """A task that the backbone learns from scratch before it is transferred; `none` has no data set."""

    name: str = "none"
    dataset: Any = field(default_factory=lambda: _common())  # `Dataset` once checked
    augmentation: Augmentation = field(default_factory=Augmentation)
    strategy: Strategy = field(default_factory=Strategy)
    optimizer: Any = None
    schedule: Any = None
    training: Training = field(default_factory=Training)


@dataclass
class Config:
    """One run."""

    seed: int = 0
    output: str = "outputs"
    backbone: Backbone = MISSING
    head: Head = field(default_factory=Head)
    dataset: Any = field(default_factory=lambda: _common())  # `Dataset` once checked
    augmentation: Augmentation = field(default_factory=Augmentation)
    strategy: Strategy = MISSING
    optimizer: Any = MISSING
    schedule: Any = MISSING
    source: Source = field(default_factory=Source)
    training: Training = field(default_factory=Training)
    features: Features = field(default_factory=Features)
    evaluation: Evaluation = field(default_factory=Evaluation)
    runtime: Runtime = field(default_factory=Runtime)
    tracking: Tracking = field(default_factory=Tracking)


def checked(node: Any) -> Config:
    """The composed configuration as typed objects, every value in range and every name known.

    Raises:
        RequestError: a value is missing, out of range or of an unknown name; the line has its full key.
    """
    try:
        config: Config = OmegaConf.to_object(node)  # type: ignore[assignment]
    except OmegaConfBaseException as error:
        key = f"{error.full_key}: " if error.full_key else ""
        raise RequestError(f"{key}{str(error.msg or error).splitlines()[0]}") from error
    config.dataset = _dataset("dataset", config.dataset)
    config.source.dataset = _dataset("source.dataset", config.source.dataset) if config.source.name != "none" else None
    if config.strategy.weights == "none":  # there is nothing to transfer
        config.backbone.weights, config.source = "none", Source(dataset=None)
    if problem := next(chain(_problems(config), _unknown_stages(config)), None):
        raise RequestError(problem)
    if config.source.dataset is not None:
        _inherit("source.", config.source.strategy, config.source)
    _inherit("", config.strategy, config)
    return config


def source_task(config: Config) -> Config | None:
    """The run that trains the backbone on the source data set, or None where there is no source."""
    source = config.source
    if source.dataset is None:
        return None
    return dataclasses.replace(
        config,
        **{name: getattr(source, name) for name in _SOURCE_PARTS},
        backbone=dataclasses.replace(config.backbone, weights="none"),
        head=Head(),
        source=Source(dataset=None),
        evaluation=Evaluation(),
    )


_SOURCE_PARTS = ("dataset", "augmentation", "strategy", "optimizer", "schedule", "training")


def identity(config: Config, fingerprint: str, weights: str) -> str:
    """A hash of everything that can change the result: 64 hex digits.

    Left out is where things lie and how fast they are computed (output, tracking, workers, threads); the data is in it
    by its content's `fingerprint`, the starting weights by their digest.
    """
    tree = dataclasses.asdict(config)
    for path in ("output", "tracking", "source", "runtime.workers", "runtime.threads", "runtime.offline"):
        _drop(tree, path)
    _drop(tree, "dataset.reader.root")
    tree["backbone"]["weights"], tree["dataset"]["fingerprint"] = weights, fingerprint
    return hashlib.sha256(json.dumps(tree, sort_keys=True, default=str).encode()).hexdigest()


def component(node: Mapping[str, Any], key: str, **more: Any) -> Callable[..., Any]:
    """The callable that a YAML names by `_target_`, with the node's other keys bound, and those of `more` it takes.

    Raises:
        RequestError: nothing has that name, or it does not take one of the node's keys.
    """
    target_name = str(node.get("_target_"))
    try:
        target = pkgutil.resolve_name(target_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise RequestError(f"{key}._target_={target_name}: cannot be found ({error})") from error
    takes = inspect.signature(target).parameters
    anything = any(parameter.kind is parameter.VAR_KEYWORD for parameter in takes.values())
    given = {name: value for name, value in node.items() if name != "_target_"}
    for name in given:
        if name not in takes and not anything:
            raise RequestError(
                f"{key}.{name}: {target_name} takes no such key{nearest(name, takes)}; {', '.join(takes)}"
            )
    return partial(target, **given, **{name: value for name, value in more.items() if name in takes})


def flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested mappings, as (dotted key, value)."""
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def stage_index(train_from: str, stages: Sequence[str], classifier: str, *, key: str, fine: bool = True) -> int:
    """The position of the stage or anchor `train_from` among `stages` (input side first).

    Raises:
        RequestError: no such stage, or `last` where the backbone has no stages of its own (`fine=False`).
    """
    if train_from == "all":
        return 0
    if train_from == "head":
        return len(stages) - 1
    start = list(stages).index(classifier)
    if train_from == "classifier":
        return start
    if train_from == "last":
        if not fine:
            raise RequestError(
                f"{key}=last: this backbone's blocks do not run in sequence, so it has no last stage of its own; "
                "take head (the new layers) or all (the whole network)"
            )
        return max(start - 1, 0)
    if train_from not in stages:
        raise RequestError(
            f"{key}={train_from}: no such stage{nearest(train_from, [*stages, *ANCHORS])}; "
            f"stages: {', '.join(stages)}; or head, classifier, last, all"
        )
    return list(stages).index(train_from)


def stage_names(stages: Sequence[str], append: bool) -> list[str]:
    """The stages' names once the head is on: `append` renames the network's own last layer to `logits`."""
    return [*stages[:-1], "logits", "head"] if append else list(stages)


def _dataset(key: str, node: Any) -> Dataset:
    if not isinstance(node, Mapping) or "_target_" not in node:
        raise RequestError(f"{key}: the YAML of a data set needs a _target_ (the function that reads it)")
    common = {f.name for f in dataclasses.fields(Dataset)} - {"reader"}
    given = {name: value for name, value in node.items() if name in common}
    try:
        merged = OmegaConf.merge(OmegaConf.structured(Dataset), given)
    except OmegaConfBaseException as error:
        raise RequestError(f"{key}.{error.full_key}: {str(error.msg).splitlines()[0]}") from error
    dataset: Dataset = OmegaConf.to_object(merged)  # type: ignore[assignment]
    dataset.reader = {name: value for name, value in node.items() if name not in common}
    return dataset


def _inherit(prefix: str, strategy: Strategy, whole: Any) -> None:
    training = whole.training
    for name, phase in strategy.phases.items():
        for group in ("optimizer", "schedule"):
            if getattr(phase, group) is None:
                setattr(phase, group, getattr(whole, group))
            if not isinstance(getattr(phase, group), Mapping):
                key = f"{prefix}strategy.phases.{name}.{group}"
                raise RequestError(f"{key}={getattr(phase, group)}: write +{group}@{key}={getattr(phase, group)}")
        for value in ("epochs", "lr", "batch_size", "patience"):
            if getattr(phase, value) is None:
                setattr(phase, value, getattr(training, value))
        phase.lr *= training.lr_factor


def _drop(tree: dict[str, Any], path: str) -> None:
    *parents, leaf = path.split(".")
    for parent in parents:
        tree = tree.get(parent, {})
    tree.pop(leaf, None)


# key pattern → (lowest, highest, whether the lowest itself is allowed)
_RANGES: tuple[tuple[str, float, float | None, bool], ...] = (
    (r"seed", 0, 2**32 - 1, True),
    (r"(source\.)?dataset\.(val|test)_fraction", 0, 0.9, False),
    (r"(source\.)?dataset\.(limit\.\w+|per_class)", 1, None, True),
    (r"backbone\.input_size", 8, 4096, True),
    (r"head\.dropout", 0, 0.99, True),
    (r"(.*\.)?(epochs|batch_size|patience)", 1, None, True),
    (r"(.*\.)?(lr|lr_factor)", 0, None, False),
    (r".*\.lr_decay", 0, 1, False),
    (r"(source\.)?training\.label_smoothing", 0, 0.99, True),
    (r"(source\.)?training\.clip_norm", 0, None, False),
    (r"(source\.)?training\.accumulate", 1, None, True),
    (r"features\.budget", 0, None, True),
)
_CHOICES: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r"(source\.)?dataset\.on_error", ("fail", "skip")),
    (r"(source\.)?augmentation\.input", ("image", "view")),
    (r"(source\.)?training\.class_weights", ("balanced",)),
    (r".*\.statistics", ("learning", "all", "none")),
    (r".*\.solver", ("sgd",)),
    (r"features\.mode", ("auto", "live", "exact")),
    (r"runtime\.precision", ("auto", "fp32", "bf16")),
)
_PATTERNS: tuple[tuple[str, str, str], ...] = (
    (r"runtime\.device", r"auto|cpu|mps|cuda(:\d+)?", "auto, cpu, cuda, cuda:<number> or mps"),
    (r"runtime\.threads", r"auto|[1-9]\d*", "auto or a number from 1"),
    (r"runtime\.workers", r"auto|\d+", "auto or a number from 0"),
    (r"backbone\.resize", r"auto|squash|[1-9]\d*", "a number of pixels, squash or auto"),
    (r"backbone\.crop", r"auto|[1-9]\d*", "a number of pixels, null or auto"),
    (r"backbone\.interpolation", r"auto|nearest|bilinear|bicubic", "nearest, bilinear, bicubic or auto"),
)
_SELECTORS = ("all", "norm", "bias")


def _problems(config: Config) -> Iterator[str]:
    for key, value in flat(dataclasses.asdict(config)):
        if value is None or ".optimizer." in key or ".schedule." in key:
            continue
        for pattern, low, high, closed in _RANGES:
            outside = re.fullmatch(pattern, key) and isinstance(value, int | float)
            if (outside and not (low <= value if closed else low < value)) or (
                outside and high is not None and value > high
            ):
                most = "" if high is None else f" and at most {high}"
                yield f"{key}={value}: must be {'at least' if closed else 'more than'} {low}{most}"
        for pattern, choices in _CHOICES:
            if re.fullmatch(pattern, key) and value not in choices:
                yield f"{key}={value}: must be {', '.join(choices)}{nearest(str(value), choices)}"
        for pattern, form, words in _PATTERNS:
            if re.fullmatch(pattern, key) and not re.fullmatch(form, str(value)):
                yield f"{key}={value}: must be {words}"
        if key.endswith(".learns"):
            for selector in set(value) - set(_SELECTORS):
                yield f"{key}: {selector} is not one of {', '.join(_SELECTORS)}{nearest(selector, _SELECTORS)}"
    for width in config.head.hidden:
        if width < 1:
            yield f"head.hidden: a layer's width must be at least 1, not {width}"
    if not config.strategy.phases:
        yield "strategy.phases: a strategy needs at least one phase"


def _unknown_stages(config: Config) -> Iterator[str]:
    if config.backbone.stages is None:
        return  # known once the model is built: `strategy.plan` checks then
    stages = list(config.backbone.stages)
    if config.backbone.classifier not in stages:
        yield f"backbone.classifier={config.backbone.classifier}: not one of the stages {', '.join(stages)}"
        return
    tasks = [("", config.strategy, config.head.append), ("source.", config.source.strategy, False)]
    for prefix, strategy, append in tasks:
        for name, phase in strategy.phases.items():
            for end in ("train_from", "train_to"):
                if getattr(phase, end) is not None:
                    key = f"{prefix}strategy.phases.{name}.{end}"
                    try:
                        stage_index(
                            getattr(phase, end), stage_names(stages, append), config.backbone.classifier, key=key
                        )
                    except RequestError as error:
                        yield str(error)

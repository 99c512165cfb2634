"""What a run is made of: the typed schema of everything with a fixed shape.

Each key has its rule beside it: range or choices, and a line of help. Validation, `--help`, `--cfg job` and
docs/keys.md take them from here.
"""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from omegaconf import MISSING

from tlx.config.dataset_schema import DatasetConfig, common
from tlx.config.evaluation_schema import Evaluation
from tlx.config.key_rules import key
from tlx.config.solver_keys import SOLVERS

SELECTORS = ("all", "norm", "bias", "matrix")  # of strategy
CROSS_ENTROPY = {"_target_": "tlx.losses.cross_entropy"}
AUTO = "auto"  # a learning rate
DEVICES = (r"auto|cpu|mps|cuda(:\d+)?", "auto, cpu, cuda, cuda:<number> or mps")  # the form, and in words
_NUMBER: dict[str, Any] = {"form": r"auto|[1-9]\d*", "words": "auto or a number from 1"}


@dataclass
class Backbone:
    """A network, its weights and the preprocessing that belongs to them."""

    _target_: str = key(MISSING, help="the function that makes it: tlx.backbones.torchvision, timm or small_cnn")
    name: str = key(MISSING, help="name of the model in torchvision or timm")
    weights: str = key("imagenet", help="initial weights: imagenet, none, a file, or an earlier run's folder")
    url: str | None = key(
        None, help="address of the ImageNet weights; the file's name ends in the first digits of its SHA-256"
    )
    licence: str = key("see the model's page", help="licence of the ImageNet weights")
    input_size: int | None = key(
        None,
        minimum=8,
        maximum=4096,
        help="input size in pixels; null: as the weights expect",
    )
    resize: str | None = key(
        "auto",
        form=r"auto|squash|pad|[1-9]\d*",
        words="a number of pixels, squash, pad or auto",
        help="resized short side in pixels; squash: resize both sides, no crop; pad: the whole picture, with borders; "
        "auto: as the weights expect",
    )
    crop: str | None = key(
        "auto",
        form=r"auto|[1-9]\d*",
        words="a number of pixels, null or auto",
        help="side of the centre crop in pixels; null: no crop; auto: as the weights expect",
    )
    mean: list[float] | None = key(None, help="mean of each channel, for pixels in 0..1; null: as the weights expect")
    std: list[float] | None = key(None, help="standard deviation of each channel; null: as the weights expect")
    interpolation: str = key(
        "auto",
        form=r"auto|nearest|bilinear|bicubic",
        words="nearest, bilinear, bicubic or auto",
        help="interpolation when resizing; auto: as the weights expect",
    )
    stages: dict[str, list[str]] | None = key(
        None, help="names of the stages and their submodules, from input to output; null: found by running the model"
    )
    classifier: str = key("head", help="name of the stage where the classifier starts")
    arguments: dict[str, Any] = key(factory=dict, help="further arguments of the network's constructor")


def names_weights(argument: str) -> bool:
    """Whether an argument of a network's constructor says where weights come from: only `backbone.weights` may."""
    return re.search("pretrained|checkpoint|cache|weights", argument) is not None


@dataclass
class Head:
    """The new last layers, `[N, D]` → `[N, classes]`."""

    append: bool = key(False, help="keep the pretrained 1000-class layer and add a new layer after it")
    hidden: list[int] = key(factory=list, minimum=1, help="width of each hidden layer before the last layer")
    dropout: float = key(0.0, minimum=0, maximum=0.99, help="dropout rate after each hidden layer")
    stages: list[str] = key(
        factory=list, help="stages whose pooled outputs the head takes together, or [all]; []: the last one's output"
    )
    references: int = key(
        0, minimum=0, maximum=100_000, help="images that the head keeps at most, to compare with; 0: it has layers"
    )


@dataclass
class Augmentation:
    """Random views for training: torchvision transforms of the decoded `image`, or of its evaluation `view`."""

    input: str = key(
        "view",
        choices=("image", "view"),
        help="input of the transforms: the decoded image, or its evaluation view",
    )
    transforms: list[Any] = key(factory=list, help="in order, by _target_; sizes as shares of the input, as in 256/224")


@dataclass
class Phase:
    """What is trained, and by which solver. What is null comes from `training` and the groups."""

    train_from: str = key(MISSING, help="first trainable stage: its name, or head, classifier, last, first, all")
    train_to: str | None = key(None, help="last trainable stage; null: the end of the network")
    learns: list[str] = key(
        factory=lambda: ["all"],
        choices=SELECTORS,
        help="which parameters of these stages to train",
    )
    statistics: str = key(
        "learning",
        choices=("learning", "all", "none"),
        help="which BatchNorm statistics are updated",
    )
    solver: Any = key(
        "sgd",
        choices=tuple(SOLVERS),
        help="training algorithm: sgd (by the optimizer; so lora, l2_sp), linear_probe, knn, heads, or its _target_",
    )
    optimizer: Any = key(None, help="this phase's: +optimizer@strategy.phases.<name>.optimizer=adam; null: the group's")
    schedule: Any = key(None, help="this phase's, given in the same way; null: the group's")
    epochs: int | None = key(None, minimum=1, help="number of epochs; null: training.epochs")
    min_steps: int | None = key(
        None, minimum=0, maximum=1_000_000, help="minimum number of optimizer steps; null: training.min_steps"
    )
    lr: Any = key(
        None, above=0, also=(AUTO,), help="learning rate; auto: by a range test before the phase; null: training.lr"
    )
    lr_decay: float = key(1.0, above=0, maximum=1, help="layer-wise decay: a stage's rate ÷ that of the stage after it")
    batch_size: int | None = key(None, minimum=1, help="batch size; null: training.batch_size")
    patience: int | None = key(None, minimum=1, help="early stopping, in epochs; null: training.patience")


if TYPE_CHECKING:
    Phases = dict[str, Phase]  # once checked
else:
    Phases = dict[str, Phase | None]


@dataclass
class Strategy:
    """An ordered set of phases."""

    phases: Phases = key(factory=dict, each=Phase, help="phases in order; null leaves a phase out")
    weights: str | None = key(
        None, choices=("none",), help="none: start from random weights, whatever backbone.weights is"
    )


@dataclass
class Training:
    """What every phase inherits."""

    epochs: int = key(10, minimum=1, help="number of epochs of each phase")
    min_steps: int = key(
        0,
        minimum=0,
        maximum=1_000_000,
        help="minimum number of optimizer steps of a phase; with few images it gets more epochs",
    )
    batch_size: int = key(32, minimum=1, help="batch size: number of images")
    lr: Any = key(1e-3, above=0, also=(AUTO,), help="learning rate; auto: by a range test before each phase")
    lr_factor: float = key(1.0, above=0, help="factor applied to the learning rate of every phase")
    patience: int | None = key(
        None,
        minimum=1,
        help="early stopping: epochs without improvement of evaluation.choose_by; null: none",
    )
    label_smoothing: float = key(0.0, minimum=0, maximum=0.99, help="share of each label spread over all classes")
    class_weights: str | None = key(
        None,
        choices=("balanced",),
        help="balanced: weight the loss by inverse class frequency; null: no weights",
    )
    sampler: str | None = key(
        None,
        choices=("balanced",),
        help="balanced: draw each class equally often in an epoch; null: each image once",
    )
    mixing: Any = key(None, help="what mixes the images of a batch, by its _target_ (recipe=mixup); null: nothing")
    mix_at: str = key(
        "pixels",
        choices=("pixels", "features"),
        help="what is mixed: pixels, for which frozen stages run in each epoch, or the cached features",
    )
    clip_norm: float | None = key(None, above=0, help="gradient clipping: maximum norm; null: no clipping")
    accumulate: int = key(1, minimum=1, help="gradient accumulation: micro-batches per batch")
    ema: float | None = key(
        None,
        above=0,
        maximum=0.999999,
        help="exponential moving average of the weights: its decay a step, reached gradually; null: none",
    )
    average_last: int | None = key(
        None, minimum=1, help="mean of the weights after each of so many last epochs of a phase; null: none"
    )
    refit: bool | None = key(None, help="after the choice: train again on train and val images; null: a linear probe")


@dataclass
class Features:
    """How the output of the frozen stages is cached."""

    mode: str = key("auto", choices=("auto", "live", "exact"), help="live: no cache; exact: cache in fp32, not fused")
    views: int | None = key(
        None, minimum=1, help="number of cached random views of each training image; null: new views in each epoch"
    )
    budget: int | None = key(None, minimum=0, help="bytes of memory for the cache; null: a share of the free memory")
    store: int = key(20_000_000_000, minimum=0, help="bytes of <output>/features, the oldest are removed; 0: none")
    shared: bool = key(False, help="runs on several machines that share <output> compute the features together")


@dataclass
class Runtime:
    """Where and how the run computes."""

    device: str = key("auto", form=DEVICES[0], words=DEVICES[1], help="auto: a GPU if there is one")
    precision: str = key("auto", choices=("auto", "fp32", "bf16"), help="auto: bf16 if the device has matrix units")
    threads: str = key("auto", **_NUMBER, help="number of CPU threads")
    workers: str = key("auto", form=r"auto|\d+", words="auto or a number from 0", help="processes that read images")
    devices: str = key("1", **_NUMBER, help="number of devices that share the run (data parallel); auto: all GPUs")
    offline: bool = key(False, help="never use the network")
    max_pixels: int = key(100_000_000, minimum=1, help="maximum pixels of an image; larger images are not read")


@dataclass
class Tracking:
    """Where MLflow stores the run."""

    enabled: bool = key(True, help="log the run to MLflow")
    uri: str | None = key(None, help="store's address; null: MLFLOW_TRACKING_URI, else sqlite:///<output>/mlflow.db")
    experiment: str | None = key(None, help="a name, or id:7; null: MLFLOW_EXPERIMENT_NAME or _ID, else tlx")
    model: bool = key(True, help="log the saved model")
    register: str | None = key(
        None,
        form=r"\w[\w .-]*",
        words="a name of letters, digits, spaces, dots, - and _",
        help="register the model under this name in MLflow's registry; null: do not",
    )
    system_metrics: bool = key(True, help="log the usage of CPU, memory and GPU")


@dataclass
class Sweep:
    """Runs that belong together (`-m`)."""

    name: str | None = key(
        None,
        form=r"[\w+-][\w .+-]*",
        words="a folder's name: letters, digits, spaces, dots, +, - and _",
        help="name of the sweep and its folder, by which it is resumed; null: date and time",
    )


@dataclass
class Source:
    """A task that the backbone is trained on from scratch before the transfer; `none` has no data set."""

    name: str = key("none", help="name of the source task; none: there is no source task")
    dataset: Any = key(factory=lambda: common(), of=DatasetConfig, help="as dataset")  # `DatasetConfig` once checked
    augmentation: Augmentation = key(factory=Augmentation, help="as augmentation")
    strategy: Strategy = key(factory=Strategy, help="as strategy")
    optimizer: Any = key(None, help="as optimizer")
    schedule: Any = key(None, help="as schedule")
    training: Training = key(factory=Training, help="as training")


_SEVERAL: dict[str, Any] = {"minimum": 2, "maximum": 1000, "fewer": "for one run leave it out; seed=… is its seed"}


@dataclass
class Config:
    """One run."""

    seed: int = key(0, minimum=0, maximum=2**32 - 1, help="random seed of splits, new layers, image order and views")
    seeds: int | None = key(None, **_SEVERAL, help="number of seeds, from `seed` on; makes a sweep")
    folds: int | None = key(None, **_SEVERAL, help="number of folds of a cross-validation; makes a sweep")
    output: str = key("outputs", help="the folder of all runs")
    resume: str = key("never", choices=("auto", "never"), help="auto: resume an interrupted run that is the same")
    sweep: Sweep = key(factory=Sweep, help="runs that belong together")
    backbone: Backbone = key(MISSING, help="a network, its weights and its preprocessing")
    head: Head = key(factory=Head, help="the new last layers")
    dataset: Any = key(
        factory=lambda: common(), of=DatasetConfig, help="images and labels"
    )  # `DatasetConfig` once checked
    augmentation: Augmentation = key(factory=Augmentation, help="random views for training")
    strategy: Strategy = key(MISSING, help="an ordered set of phases")
    optimizer: Any = key(MISSING, help="a class by its _target_, and its arguments; the learning rate is training.lr")
    schedule: Any = key(MISSING, help="of the learning rate: a function by its _target_, and its arguments")
    loss: Any = key(MISSING, help="what training minimises: a function by its _target_, and its arguments")
    source: Source = key(factory=Source, help="a task that the backbone is trained on first, from scratch")
    training: Training = key(factory=Training, help="what every phase inherits")
    features: Features = key(factory=Features, help="how the frozen stages' output is cached")
    evaluation: Evaluation = key(factory=Evaluation, help="what chooses the model, and what is measured")
    runtime: Runtime = key(factory=Runtime, help="where and how the run computes")
    tracking: Tracking = key(factory=Tracking, help="where MLflow stores the run")

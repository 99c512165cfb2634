"""What is requested of a learning curve: which numbers of training images, and the jobs of each."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tlx.config import multirun
from tlx.config.command_line import command
from tlx.config.schema import Config
from tlx.core.errors import RequestError
from tlx.datasets.images import Labels
from tlx.datasets.stratified_splits import order
from tlx.sweeps.keyed_folder import check_name
from tlx.sweeps.sweep_plan import Planned, plan, single

__all__ = ["CurveJob", "CurveRequest", "CurveSize", "jobs", "labels", "requested", "sizes"]
PER_CLASS, LIMIT, VAL = "dataset.per_class", "dataset.limit.train", "dataset.limit.val"
FOREIGN = ("sweep.name", "resume", "folds", "dataset.folds", "dataset.fold", "launch")
SEEDS = 3  # where none are typed
STEPS = 7  # numbers of images, each twice the one before
FEW = 5  # images of a class in the mean, from which the smallest number is


@dataclass(frozen=True)
class CurveRequest:
    """A request as typed, taken apart.

    Attributes:
        fixed: the overrides of all jobs, with commas where there are several values.
        per_class, limits: the numbers of images that were typed; none: they follow from the data.
        own_val: whether the number of validation images was typed.
        name: of the folder; None: that of an earlier call with the same data and settings, or date and time.
    """

    fixed: tuple[str, ...]
    per_class: tuple[int, ...] = ()
    limits: tuple[int, ...] = ()
    own_val: bool = False
    name: str | None = None
    config_dir: str | None = None

    def first(self) -> Config:
        """The configuration of one job, for what all have in common.

        Raises:
            RequestError: a key, a name or a value is wrong.
        """
        first = multirun.jobs(self.fixed, self.config_dir)[0]
        return single([word for word in first if not word.startswith("seeds=")], self.config_dir)[0].config

    def in_common(self) -> list[str]:
        """What was typed for all series, and would give another curve; a job is known by more than that."""
        aside = re.compile(r"(strategy|backbone|seeds?|output|dataset\.root)=|tracking|runtime")
        return sorted(word for word in self.fixed if "," not in word and not aside.match(word))


@dataclass(frozen=True)
class CurveSize:
    """A number of training images: what is typed for it, and how many that are."""

    overrides: tuple[str, ...]
    images: int


@dataclass(frozen=True)
class CurveJob:
    """A job of the sweep that a curve is: the place of its size, and the label of its series."""

    job: Planned
    size: int
    series: str


def requested(overrides: Sequence[str], name: str | None = None, config_dir: str | None = None) -> CurveRequest:
    """The request of a command line.

    Raises:
        RequestError: a value is out of range, or an override has no place in it.
    """
    check_name(name)
    fixed, numbers = list[str](), dict[str, tuple[int, ...]]()
    for override in overrides:
        key, _, value = override.partition("=")
        if key in FOREIGN:
            raise RequestError(f"{override}: has no place in a curve; it has a folder and a launcher of its own")
        if key in (PER_CLASS, LIMIT):
            numbers[key] = _numbers(override, value)
        else:
            fixed.append(override)
    if len(numbers) > 1:
        raise RequestError(f"{PER_CLASS}, {LIMIT}: both are the numbers of training images; keep one of them")
    if not any(re.match(r"\+?(dataset|experiment)=", word) for word in fixed):
        raise RequestError("dataset: which data? as in dataset=image_folder dataset.root=~/photos")
    if not any(word.partition("=")[0] in ("seed", "seeds") for word in fixed):
        fixed.append(f"seeds={SEEDS}")
    own = any(word.startswith(f"{VAL}=") for word in fixed)
    return CurveRequest(tuple(fixed), numbers.get(PER_CLASS, ()), numbers.get(LIMIT, ()), own, name, config_dir)


def _numbers(override: str, value: str) -> tuple[int, ...]:
    words = [word.strip() for word in value.strip("[]").split(",")]
    if not all(re.fullmatch(r"[1-9]\d{0,8}", word) for word in words) or len(set(words)) < len(words):
        raise RequestError(f"{override}: must be different whole numbers, as 5,10,20,50")
    return tuple(sorted(map(int, words)))


def sizes(request: CurveRequest, labels: Labels, val: int, classes: Sequence[str], seed: int) -> list[CurveSize]:
    """The numbers of training images, ascending.

    The validation set shrinks in the same share, as that of a data set of this size would be; both are nested.

    Args:
        labels: of all training images.
        val: how many images validate beside them.

    Raises:
        RequestError: there are fewer images than a number that was typed.
    """
    total, fewest = len(labels), _complete(labels, len(classes), seed)

    def share(images: int) -> tuple[str, ...]:
        return () if request.own_val else (f"{VAL}={max(round(val * images / total), min(len(classes), val))}",)

    if request.per_class:
        least = int(np.bincount(labels, minlength=len(classes)).min())
        if request.per_class[-1] > least:
            scarce = classes[int(np.bincount(labels, minlength=len(classes)).argmin())]
            raise RequestError(
                f"{PER_CLASS}={request.per_class[-1]}: class '{scarce}' has {least} training images; at most {least}"
            )
        many = [(count, count * len(classes)) for count in request.per_class]
        return [CurveSize((f"{PER_CLASS}={count}", *share(images)), images) for count, images in many]
    if len(request.limits) > 1:
        steps = list(request.limits)
        if steps[-1] > total:
            raise RequestError(f"{LIMIT}={steps[-1]}: there are {total:,} training images; at most {total}")
    else:  # one number alone: the most
        most = min([total, *request.limits])
        steps = [round(most / 2**step) for step in range(STEPS)][::-1]
        least = max(fewest, min(FEW * len(classes), most))
        steps = [step for step in steps if step >= least] or [most]
    if steps[0] < fewest:
        raise RequestError(
            f"{LIMIT}={steps[0]}: leaves a class without a training image; the smallest number with one of each of the "
            f"{len(classes)} classes is {fewest}"
        )
    limited = [CurveSize((f"{LIMIT}={images}", *share(images)), images) for images in steps]
    return [CurveSize((), total) if size.images == total else size for size in limited]


def _complete(labels: Labels, classes: int, seed: int) -> int:
    """The smallest number of images, in the order in which they are taken, that has one of each class."""
    first = {int(label): place for place, label in reversed(list(enumerate(labels[order(labels, seed)])))}
    return max(first.values()) + 1 if len(first) == classes else len(labels)


def jobs(request: CurveRequest, steps: Sequence[CurveSize], name: str) -> list[CurveJob]:
    """Every job of the curve in the folder `name`, the smallest numbers first.

    Raises:
        RequestError: as `sweep_plan.plan`.
    """
    planned = list[tuple[int, Planned]]()
    for place, size in enumerate(steps):
        some, _ = plan([*request.fixed, *size.overrides, f"sweep.name={name}"], request.config_dir)
        planned += [(place, job) for job in some]
    series = labels([job for _, job in planned])
    found = []
    for (place, job), label in zip(planned, series, strict=True):
        seed = next((word for word in job.overrides if word.startswith("seed=")), f"seed={job.config.seed}")
        typed = [word for word in job.overrides if not word.startswith("sweep.name=")]
        named = replace(
            job, name=f"{label} {steps[place].images:,} images {seed}", command=command(typed, request.config_dir)
        )
        found.append(CurveJob(named, place, label))
    return found


def labels(planned: Sequence[Planned]) -> list[str]:
    """For each job the name of its series: what varies beside seed and size; the strategy where nothing does."""
    aside = ("seed", "sweep.name", PER_CLASS, LIMIT, VAL)
    own = [[word for word in job.overrides if word.partition("=")[0] not in aside] for job in planned]
    varied = [[word for word in words if not all(word in other for other in own)] for words in own]
    alone = len({word.partition("=")[0] for words in varied for word in words}) <= 1
    return [
        " ".join(word.partition("=")[2] if alone else word for word in words)
        or job.typed.choices.get("strategy", "the defaults")
        for words, job in zip(varied, planned, strict=True)
    ]

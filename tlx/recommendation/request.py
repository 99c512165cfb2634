"""What is requested of a recommendation: data and settings that are fixed, the choices, the time, the limits."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tlx.core.errors import RequestError
from tlx.sweeps.keyed_folder import check_name

__all__ = ["Limits", "RecommendationRequest", "requested", "words_of"]
FOREIGN = ("seeds", "folds", "sweep.name", "resume", "dataset.folds", "dataset.fold", "source")
LEAST, MOST = 0.5, 100_000.0  # minutes


@dataclass(frozen=True)
class Limits:
    """What a network may cost at most; None: no limit.

    Attributes:
        parameters: their number.
        ms: milliseconds of a prediction on this machine, an image.
        mb: megabytes of its file of weights.
    """

    parameters: float | None = None
    ms: float | None = None
    mb: float | None = None

    def broken(self, parameters: int, mb: float, ms: float | None = None) -> str:
        """The limit that a network breaks, in words; empty where it breaks none. `ms`: None where not measured yet."""
        if self.parameters is not None and parameters > self.parameters:
            return f"{parameters:,} parameters, above --max-parameters {self.parameters:,.0f}"
        if self.mb is not None and mb > self.mb:
            return f"{mb:.1f} MB, above --max-mb {self.mb:g}"
        if self.ms is not None and ms is not None and ms > self.ms:
            return f"{ms:.1f} ms an image, above --max-ms {self.ms:g}"
        return ""


@dataclass(frozen=True)
class RecommendationRequest:
    """A request as typed, taken apart.

    Attributes:
        fixed: the overrides that all candidates have.
        backbones: choices of the group; none: all whose weights are here.
        strategies: choices of the group; none: those that the size of the data suggests.
        seconds: that all of it may take.
        weights: a file for each backbone that was given one.
        download: whether weights may be fetched.
        name: of the folder; None: that of an earlier call with the same request, or date and time.
    """

    fixed: tuple[str, ...]
    backbones: tuple[str, ...] = ()
    strategies: tuple[str, ...] = ()
    seconds: float = 600.0
    limits: Limits = field(default_factory=Limits)
    weights: Mapping[str, str] = field(default_factory=dict)
    download: bool = False
    name: str | None = None
    config_dir: str | None = None


def requested(
    overrides: Sequence[str],
    minutes: float,
    *,
    limits: Limits | None = None,
    weights: Sequence[str] = (),
    download: bool = False,
    name: str | None = None,
    config_dir: str | None = None,
) -> RecommendationRequest:
    """The request of a command line. `weights`: `BACKBONE=FILE` each.

    Raises:
        RequestError: a value is out of range, or an override has no place in it.
    """
    if not LEAST <= minutes <= MOST:
        raise RequestError(f"--minutes {minutes:g}: must be at least {LEAST:g} and at most {MOST:,.0f}")
    limits = limits or Limits()
    for option, most in (("parameters", limits.parameters), ("ms", limits.ms), ("mb", limits.mb)):
        if most is not None and not most > 0:
            raise RequestError(f"--max-{option} {most:g}: must be above 0")
    check_name(name)
    choices: dict[str, tuple[str, ...]] = {"backbone": (), "strategy": ()}
    fixed = []
    for override in overrides:
        key, equals, value = override.partition("=")
        if key in FOREIGN:
            raise RequestError(
                f"{override}: has no place here: each candidate is one run with the same images and seed"
            )
        if key not in choices:
            fixed.append(override)
            continue
        if choices[key]:
            raise RequestError(f"{override}: {key} is given twice; list its choices, as {key}=a,b")
        choices[key] = tuple(word.strip() for word in value.split(","))
        if not equals or not all(choices[key]) or len(set(choices[key])) < len(choices[key]):
            raise RequestError(f"{override}: give each choice once, as {key}=a,b")
    if not any(re.match(r"\+?(dataset|experiment)=", word) for word in fixed):
        raise RequestError("dataset: which data? as in dataset=image_folder dataset.root=~/photos")
    return RecommendationRequest(
        tuple(fixed), choices["backbone"], choices["strategy"], 60 * minutes, limits,
        _files(weights, choices["backbone"]), download, name, config_dir,
    )  # fmt: skip


def words_of(request: RecommendationRequest) -> list[str]:
    """What would be typed after `recommend` for a request, without --config-dir."""
    words = [*request.fixed]
    words += [f"{key}={','.join(names)}" for key, names in _choices(request) if names]
    words += ["--minutes", f"{request.seconds / 60:g}"]
    limits = (("parameters", request.limits.parameters), ("ms", request.limits.ms), ("mb", request.limits.mb))
    words += [word for option, most in limits if most is not None for word in (f"--max-{option}", f"{most:g}")]
    words += [word for name, file in request.weights.items() for word in ("--weights", f"{name}={file}")]
    words += ["--name", request.name] if request.name is not None else []
    return [*words, *(["--download"] if request.download else [])]


def _choices(request: RecommendationRequest) -> tuple[tuple[str, tuple[str, ...]], ...]:
    return ("backbone", request.backbones), ("strategy", request.strategies)


def _files(typed: Sequence[str], backbones: Sequence[str]) -> dict[str, str]:
    found = {}
    for word in typed:
        backbone, equals, file = word.partition("=")
        if not (equals and backbone and file):
            raise RequestError(f"--weights {word}: must be BACKBONE=FILE, as mobilenet_v2=~/mobilenet_v2.pth")
        if backbone in found:
            raise RequestError(f"--weights {word}: {backbone} has a file already")
        if backbones and backbone not in backbones:
            raise RequestError(f"--weights {word}: {backbone} is not one of backbone={','.join(backbones)}")
        if not Path(file).expanduser().exists():
            raise RequestError(f"--weights {word}: no such file")
        found[backbone] = file
    return found

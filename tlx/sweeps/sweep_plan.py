"""The jobs of a sweep: every combination of a command line once, with what it is known by."""

import dataclasses
import itertools
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, read_write

from tlx.config import compose, multirun
from tlx.config.command_line import command
from tlx.config.identity import key
from tlx.config.resolvers import choices_of
from tlx.config.schema import Config
from tlx.config.unread_keys import Typed, common, refuse, unread, varied
from tlx.config.validation import checked
from tlx.core.errors import RequestError, shown

log = logging.getLogger("tlx")


@dataclass(frozen=True)
class Planned:
    """A job: what was typed for it, what it is known by, where it runs."""

    overrides: tuple[str, ...]
    config: Config
    key: str
    folder: str  # a name within the sweep's
    command: str
    name: str  # what sets it apart from the others
    launcher: str  # Hydra's name of it
    settings: Mapping[str, Any]  # of the launcher
    beside: int  # jobs at once on one machine, at most
    node: DictConfig
    typed: Typed  # the overrides again, and which of them have no effect


def plan(overrides: Sequence[str], config_dir: str | None) -> tuple[list[Planned], Path]:
    """The jobs of a command line, each composed and checked, and the sweep's folder.

    Commas make every combination; `seeds=5` stands for seed=0,…,4 and `folds=5` for the five folds of a
    cross-validation.

    Raises:
        RequestError: a configuration is wrong, an override has no effect, or two jobs would give the same result.
    """
    for override, line in Typed(overrides).overridden().items():
        if multirun.several(override):
            raise RequestError(line)
        log.warning("%s", line)
    requested = multirun.jobs(overrides, config_dir)
    _one_for_all(requested)
    jobs: list[
        tuple[list[str], DictConfig, DictConfig, Config]
    ] = []  # every configuration error comes before the first job
    first = list(_composed(requested, config_dir))
    each = [_repeated(typed, node) for typed, node, *_ in first]
    repeated = _composed(
        [one for job, some in zip(requested, each, strict=True) if some != [job] for one in some], config_dir
    )
    for job, some in zip(first, each, strict=True):
        jobs += [job] if some == [job[0]] else itertools.islice(repeated, len(some))
    shared = common([one for one, *_ in jobs])
    typed = [
        Typed(one, unread(node, several=True), [word for word in one if word not in shared], choices_of(node))
        for one, node, *_ in jobs
    ]
    refuse(typed)
    all_differ([(config, one) for one, _, _, config in jobs])
    found: dict[str, Planned] = {}
    for (one, node, mine, config), said in zip(jobs, typed, strict=True):
        known_by = key(config)
        name = _place(node, known_by, len(found) if config.sweep.name is None else None)
        launcher = node.hydra.runtime.choices["hydra/launcher"]
        found[known_by] = Planned(
            tuple(one),
            config,
            known_by,
            name,
            command(one, config_dir),
            " ".join(said.strict),
            launcher,
            node.hydra.launcher,
            _beside(launcher, node.hydra.launcher),
            mine,
            said,
        )
    return list(found.values()), compose.folder(jobs[0][1], "hydra.sweep.dir")


def single(overrides: Sequence[str], config_dir: str | None) -> tuple[Planned, Path]:
    """The job of a command line that makes no combinations, and the folder of the sweep `sweep.name`."""
    node = compose.compose(overrides, config_dir)
    mine = compose.without_hydra(node)
    config = checked(mine)
    known_by, line = key(config), command(overrides, config_dir)
    name, launcher = _place(node, known_by), node.hydra.runtime.choices["hydra/launcher"]
    typed = Typed(tuple(overrides), unread(node, several=True), choices=choices_of(node))
    job = Planned(tuple(overrides), config, known_by, name, line, "", launcher, node.hydra.launcher, 1, mine, typed)
    return job, compose.folder(node, "hydra.sweep.dir")


def _composed(
    jobs: Sequence[list[str]], config_dir: str | None
) -> Iterator[tuple[list[str], DictConfig, DictConfig, Config]]:
    """What was typed for each job, its configuration with Hydra's node and without, and that checked."""
    for job, node in zip(jobs, compose.compose_each(jobs, config_dir), strict=True):
        mine = compose.without_hydra(node)
        yield job, node, mine, checked(mine)


def _repeated(job: list[str], node: DictConfig) -> list[list[str]]:
    """The job once for each seed and fold that it requests."""
    rest = [o for o in job if o.partition("=")[0] not in ("seeds", "folds")]
    typed = {o.partition("=")[0] for o in job}
    of_a_preset = [f"{name}=null" for name in ("seeds", "folds") if node[name] is not None and name not in typed]
    if node.folds is not None and (own := typed & {"dataset.fold", "dataset.folds"}):
        raise RequestError(f"folds={node.folds}: stands for every fold; leave out {' and '.join(sorted(own))}")
    made = [[*rest, *of_a_preset]]
    if node.seeds is not None:
        seeds = range(node.seed, node.seed + int(node.seeds))
        made = [[*(o for o in one if not o.startswith("seed=")), f"seed={seed}"] for one in made for seed in seeds]
    if node.folds is not None:
        folds = range(int(node.folds))
        made = [[*one, f"dataset.folds={node.folds}", f"dataset.fold={fold}"] for one in made for fold in folds]
    return made


def all_differ(requested: Sequence[tuple[Config, Sequence[str]]]) -> None:
    """Whether no two jobs, each a configuration and what was typed for it, would give the same result.

    Raises:
        RequestError: some would; the line names the values in which they differ.
    """
    jobs = [(key(_without_idle_patience(config)), typed) for config, typed in requested]
    alike: dict[str, list[Sequence[str]]] = {}
    for known_by, typed in jobs:
        alike.setdefault(known_by, []).append(typed)
    for same in alike.values():
        names = dict.fromkeys(shown(override) for typed in same for override in varied(typed, same))
        if len(same) > 1 and names:
            raise RequestError(
                f"{', '.join(names)}: jobs of a sweep that differ in these alone give the same result; keep one of them"
            )
        if len(same) > 1:
            given = shown(" ".join(varied(same[0], [typed for _, typed in jobs])))
            raise RequestError(f"{given or 'the sweep'}: two jobs are the same; give each value once")


def _without_idle_patience(config: Config) -> Config:
    """The configuration without a patience that no phase of its length can use up."""
    phases = {
        name: dataclasses.replace(phase, patience=None)
        if phase.patience and phase.epochs and phase.patience >= phase.epochs and not phase.min_steps
        else phase
        for name, phase in config.strategy.phases.items()
    }
    idle = all(phase.patience is None for phase in phases.values())  # then nothing reads what they inherit
    return dataclasses.replace(
        config,
        strategy=dataclasses.replace(config.strategy, phases=phases),
        training=dataclasses.replace(config.training, patience=None) if idle else config.training,
    )


def _place(node: DictConfig, known_by: str, number: int | None = None) -> str:
    """The name of a job's folder; without a `number` one that a later launch finds again."""
    numbered = "hydra.job.num" in str(OmegaConf.to_container(node.hydra.sweep, resolve=False)["subdir"])  # type: ignore[call-overload,index]
    if numbered and number is None:
        raise RequestError(
            "hydra.sweep.subdir: ${hydra.job.num} changes when a sweep with a name grows; leave out one of them"
        )
    if number is not None:
        with read_write(node.hydra):
            node.hydra.job.num = number
    label = re.sub(r"[^\w.+-]+", "_", compose.text(node, "hydra.sweep.subdir"))
    return label if numbered else f"{label}-{known_by[:8]}" if number is None else f"{number}-{label}"


_SAME = r"\W*(sweep\.name|output|tracking[.=]|launch=|hydra[./]|seeds=|folds=|resume=)"


def _one_for_all(jobs: Sequence[Sequence[str]]) -> None:
    """What says where a sweep is and how it runs cannot differ from job to job; nor does `seeds` go with many seeds."""
    shared = common(jobs)
    differing = list(dict.fromkeys(override for job in jobs for override in job if override not in shared))
    for override in differing:
        if re.match(_SAME, override):
            raise RequestError(f"{override}: must be the same for all jobs of a sweep")
    seeds = next((override for job in jobs for override in job if override.startswith("seeds=")), None)
    if seeds and (several := [override for override in differing if override.startswith("seed=")]):
        raise RequestError(f"{seeds}: goes with one seed, the first; leave it out, or {', '.join(several)}")


def _beside(launcher: str, settings: Mapping[str, Any]) -> int:
    """How many jobs of a sweep one machine has at once, at most."""
    if launcher == "basic" or launcher == "submitit_slurm":  # a node's jobs have their limits from SLURM
        return 1
    cores = os.cpu_count() or 1
    requested = int(settings.get("n_jobs") or cores)
    return requested if requested > 0 else cores

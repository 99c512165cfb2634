"""A new run on an old run's images and new ones: its features as they are, its classifier fitted anew."""

import dataclasses
import json
import re
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlx.core.activity import doing
from tlx.core.atomic_files import atomic
from tlx.core.errors import RequestError
from tlx.extension import side_by_side
from tlx.extension.side_by_side import SideBySide
from tlx.reporting.log_lines import lines
from tlx.reporting.screen import live
from tlx.reporting.text_table import near
from tlx.runs.evaluation_data import composed, typed_keys
from tlx.runs.output_layout import output
from tlx.runs.run_reader import content, is_run, state

if TYPE_CHECKING:
    from tlx.config.schema import Config, Phases
    from tlx.datasets.splits import Data

__all__ = ["ABOUT", "Extension", "extend"]
ABOUT = "extension.json"
NAMED = 3  # copies that a line names


@dataclass(frozen=True)
class Extension:
    """What an extension found.

    Attributes:
        parent: the old run's folder.
        folder: the new run's.
        found: old and new accuracy side by side.
        classes: that are new.
        images: new ones by split.
        copies: (new image, old test image) of the same content.
        known: new images that the old run has trained on or was chosen by.
    """

    parent: Path
    folder: Path
    found: SideBySide
    classes: Sequence[str]
    images: Mapping[str, int]
    copies: Sequence[tuple[str, str]]
    known: int

    def __str__(self) -> str:
        return "\n".join(self.found.lines())

    def __repr__(self) -> str:
        return f"<extension of {near(self.parent)}, {near(self.folder)}>"

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        own = {
            "parent": str(self.parent.absolute()),
            "new_classes": list(self.classes),
            "new_images": dict(self.images),
        }
        copies = {"copies_in_old_test": [list(pair) for pair in self.copies], "known_before": self.known}
        return {**own, **copies, **self.found.to_dict()}


@live("preparing the extension")
def extend(run: str, overrides: Sequence[str], command: str, config_dir: str | None = None) -> Extension:
    """Trains and measures a new run on the images of the run in the folder `run` and those that overrides name.

    Raises:
        RequestError: no finished run, its images are gone or are others now, or the new ones cannot be used.
    """
    parent = Path(run)
    config = _parent(run, parent)
    seed = config.seed
    if "dataset" not in typed_keys(overrides) and any(word.startswith("dataset.") for word in overrides):
        overrides = ["dataset=image_folder", *overrides]
    if "dataset" not in typed_keys(overrides):
        raise RequestError("dataset: which new images? as in dataset.root=~/more_photos")
    new = composed(overrides, config_dir)
    if "seed" in typed_keys(overrides):
        raise RequestError(f"seed={new.seed}: an extension has the seed of its run, {seed}; leave it out")
    with doing("reading the data"), lines(quiet=True):
        old_data, new_data = _old(run, parent, config, seed), _new(new, seed)
    _print_new(old_data, new_data)
    copies, known = _copies(old_data, new_data)
    for line in _lines(copies, known, len(old_data.test)):
        print(line, file=sys.stderr)
    whole = _extended(config, new, parent, f"{old_data.name}+{new_data.name}", typed_keys(overrides), config_dir)
    from tlx.runs import run as runs

    name = re.sub(r"^\d\d-\d\d-\d\d-|-extended(-\d+)?$", "", parent.name)
    target = output(whole) / time.strftime("%Y-%m-%d") / f"{time.strftime('%H-%M-%S')}-{name}-extended"
    folder = Path(runs.run(whole, target, command=command).folder)
    classes = [name for name in new_data.classes if name not in old_data.classes]
    images = {part: len(getattr(new_data, part)) for part in ("train", "val", "test")}
    found = side_by_side.measured(parent, folder, len(old_data.test), classes)
    made = Extension(parent, folder, found, classes, images, copies, known)
    with atomic(folder / ABOUT) as file:
        file.write_text(json.dumps(made.to_dict(), indent=1, ensure_ascii=False), encoding="utf-8")
    return made


def _parent(run: str, folder: Path) -> "Config":
    """The configuration of a finished run."""
    from omegaconf import OmegaConf

    from tlx.config.identity import from_tree

    if not is_run(folder):
        raise RequestError(f"{run}: no run's folder; extend takes a finished run, as in outputs/<date>/<run>")
    if why := state(folder):
        raise RequestError(f"{run}: {why}; extend takes a finished run")
    if not (folder / "model" / "model.json").is_file():
        raise RequestError(f"{run}: its model is gone (no model/model.json in it)")
    tree: Any = OmegaConf.to_container(OmegaConf.load(folder / "config.yaml"), resolve=True)
    return from_tree(tree)


def _old(run: str, folder: Path, config: "Config", seed: int) -> "Data":
    """The images of the old run, as they were split there."""
    from tlx.runs.prepare import found
    from tlx.runs.split_data import split_data

    try:
        data = split_data(found(config), config, seed, decode=())
    except RequestError as error:
        raise RequestError(f"{run}: the images that it was trained on cannot be read any more: {error}") from error
    known = content(folder / "model" / "model.json", dict).get("data", {})
    if known.get("fingerprint") != data.fingerprint:
        raise RequestError(
            f"{run}: its images are others now than those it was trained on; put new images into a folder of their own "
            "(class folders, as before), or train anew on all of them"
        )
    return data


def _new(config: "Config", seed: int) -> "Data":
    from tlx.runs.prepare import found
    from tlx.runs.split_data import split_data

    return split_data(found(config, fewest=1), config, seed, decode=())


def _extended(
    config: "Config", new: "Config", parent: Path, name: str, typed: set[str], config_dir: str | None
) -> "Config":
    """The old run's configuration with both data sets, its own weights, and a classifier that is fitted anew."""
    from tlx.config.schema import Source
    from tlx.datasets import extended_sets

    reader: dict[str, Any] = {"_target_": "tlx.datasets.extended", "name": name, "root": None, "seed": config.seed}
    reader |= {"base": extended_sets.node(config.dataset), "more": extended_sets.node(new.dataset)}
    dataset = dataclasses.replace(type(config.dataset)(), reader=reader, on_error=config.dataset.on_error)
    dataset = dataclasses.replace(dataset, audit=config.dataset.audit, range=config.dataset.range)
    backbone = dataclasses.replace(config.backbone, weights=str(parent.absolute()))
    strategy = dataclasses.replace(config.strategy, phases=_phases(config, config_dir))
    runtime = new.runtime if any(key.startswith("runtime") for key in typed) else config.runtime
    sweep = dataclasses.replace(config.sweep, name=None)
    whole = dataclasses.replace(config, dataset=dataset, backbone=backbone, strategy=strategy, runtime=runtime)
    whole = dataclasses.replace(whole, source=Source(dataset=None), sweep=sweep)
    return dataclasses.replace(whole, output=new.output) if "output" in typed else whole


def _phases(config: "Config", config_dir: str | None) -> "Phases":
    """Those of the old run where they train the classifier alone; else the linear probe's, on the trained features."""
    from tlx.config.compose import compose, without_hydra
    from tlx.config.validation import checked

    if all(phase.train_from in ("head", "classifier") for phase in config.strategy.phases.values()):
        return config.strategy.phases
    return checked(without_hydra(compose(["strategy=linear_probe"], config_dir))).strategy.phases


def _copies(old: "Data", new: "Data") -> tuple[list[tuple[str, str]], int]:
    """New images of the same content as old test images, and how many the old run has trained on or was chosen by."""
    tested = dict(zip(old.test.digests(), old.test.files, strict=True))
    learned = {*old.train.digests(), *old.val.digests()}
    copies, known = [], 0
    for part in (new.train, new.val, new.test):
        for file, digest in zip(part.files, part.digests(), strict=True):
            known += digest in learned
            if digest in tested:
                copies.append((file, tested[digest]))
    return copies, known


def _print_new(old: "Data", new: "Data") -> None:
    more = [name for name in new.classes if name not in old.classes]
    words = f"{len(new.train)} train, {len(new.val)} val, {len(new.test)} test"
    classes = f"; new classes: {', '.join(more)}" if more else "; no new class"
    print(f"new images: {words}{classes}", file=sys.stderr)


def _lines(copies: Sequence[tuple[str, str]], known: int, tested: int) -> list[str]:
    found = []
    if copies:
        some = ", ".join(f"{near(one)} = {near(other)}" for one, other in copies[:NAMED])
        found.append(
            f"copies: {len(copies)} of the new images are also among the {tested} old test images ({some}"
            f"{', …' if len(copies) > NAMED else ''}): the new accuracy on these is too optimistic; none was removed"
        )
    if known:
        found.append(f"copies: {known} of the new images were trained on before; they count twice")
    return found

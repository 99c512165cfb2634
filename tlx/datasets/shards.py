"""Data sets in tar shards, as WebDataset writes them: the files of a sample have one name and different endings."""

import fnmatch
import glob
import itertools
import json
import os
import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tlx.config.dataset_schema import data_name
from tlx.core.errors import RequestError, nearest, printable, reason
from tlx.core.safe_archive import Refused
from tlx.datasets.archive_index import inside
from tlx.datasets.file_kinds import NAMES as ENDINGS
from tlx.datasets.folder_layout import existing, files_in, listed
from tlx.datasets.image_decoding import UnreadableImage
from tlx.datasets.image_sources import ArchiveBytes, files_bytes
from tlx.datasets.labelled_rows import LabelledRow, label_text, parts_of
from tlx.datasets.split_folders import SPLITS
from tlx.datasets.split_names import named
from tlx.datasets.splits import Parts
from tlx.datasets.table_columns import NAMES, cell_text

MOST = 100_000  # names that a pattern stands for


@dataclass(frozen=True)
class Sample:
    """The files of a sample: their numbers in the shard by their endings; `key` is the path that they share."""

    shard: ArchiveBytes
    key: str
    files: Mapping[str, int]

    @property
    def name(self) -> str:
        """What the sample is called, wherever its shard lies."""
        return f"{os.path.basename(self.shard.archive)}/{self.key}"

    def text(self, ending: str) -> str:
        """A small file's text. Raises `RequestError` where it cannot be read."""
        number = self.files[ending]
        try:
            return self.shard(number).decode("utf-8").strip()
        except (UnreadableImage, UnicodeDecodeError, OSError) as error:
            path = printable(self.shard.paths[number])
            raise RequestError(f"{path}: cannot be read as text: {reason(error)}") from error

    def value(self, place: str) -> Any:
        """What a place such as `cls` or `json.label` holds; None where it is not there."""
        ending, _, key = place.partition(".")
        if ending not in self.files:
            return None
        if not key:
            return self.text(ending) or None
        content = self.content(ending)
        for name in key.split("."):
            content = content.get(name) if isinstance(content, dict) else None
        return content

    def content(self, ending: str) -> Any:
        """What a JSON file holds. Raises `RequestError` where it is none."""
        text = self.text(ending)
        try:
            return json.loads(text)
        except ValueError as error:
            raise RequestError(f"{printable(self.shard.paths[self.files[ending]])}: is no JSON") from error


def webdataset(
    root: str | None,
    *,
    name: str = "webdataset",
    image: str | None = None,
    label: str | None = None,
    classes: Sequence[str] | None = None,
    group: str | None = None,
    splits: Mapping[str, str | None] | None = None,
    on_error: str = "fail",
    fewest: int = 2,
) -> Parts:
    """Plain tar files of samples: `0001.jpg`, `0001.cls`, `0001.json`, read in place.

    `root`: a file, a folder of them, or a pattern as `shards/{00..99}.tar` or `shards/*.tar`. `image`: the ending of
    the images; None: that of an image's format. `label`: where the label is, as `cls` or `json.label`; None: `cls`, or
    the one key of the JSON that is called so. `classes`: names of labels that are numbers from 0. `group`: as `label`,
    or an expression that `split` reads. `splits`: which shards are which split, as a pattern of their names; the
    others are what their names say, and those whose names say nothing are train. A split that has a pattern has no
    other shards: these are unused.
    `on_error`: `skip` leaves out samples without an image or a label.

    Raises `RequestError` where a shard is missing or cannot be read in place, or a sample is not as it should be.
    """
    if root is None or not root.strip():
        raise RequestError("dataset.root: which shards? As in dataset.root='shards/{00..99}.tar'")
    key = f"dataset.root={root}"
    shards = _shards(root, key)
    split_of, unused = _splits(shards, splits or {})
    samples = [(split, sample) for shard, split in split_of.items() for sample in _samples(shard, key)]
    if not samples:
        raise RequestError(f"{key}: holds no file; a shard holds the files of samples, as 0001.jpg and 0001.cls")
    first = samples[0][1]
    place = label or _label_place(first, key)
    grouped = group is not None and first.value(group) is not None
    rows, left_out = [], list[tuple[str, str]]()
    for split, sample in samples:
        picture = _picture(sample, image, key)
        value = sample.value(place)
        if picture is None or value is None:
            wrong = "image" if picture is None else f"label ({place})"
            left_out.append(
                (f"{sample.shard.archive}/{sample.key}", f"has no {wrong}; it has {', '.join(sample.files)}")
            )
            continue
        number, text = sample.files[picture], _class(sample, place, value, classes, key)
        value = sample.value(str(group)) if grouped else None
        of_group = "" if value is None else cell_text(value)
        called, file = f"{sample.name}.{picture}", sample.shard.paths[number]
        rows.append(LabelledRow(called, file, text, split, of_group, sample.shard, number))
    if left_out and (on_error == "fail" or not rows):
        path, why = left_out[0]
        more = f"; and {len(left_out) - 1} more" if len(left_out) > 1 else ""
        raise RequestError(f"{printable(path)}: {why}{more}; dataset.on_error=skip leaves such samples out")
    note = f"shards: {len(split_of):,}; labels from {place}{f', groups from {group}' if grouped else ''}"
    notes = [f"{note}; dataset.label changes it"]
    if unused:
        notes.append(f"shards not used: {listed(_called(unused, shards))}; dataset.splits.train=PATTERN takes them")
    used = {split: [shard for shard in split_of if split_of[shard] == split] for split in SPLITS}
    return parts_of(
        rows, key, fewest, order=classes or (), grouped=grouped, name=data_name(name, webdataset.__name__, root),
        skipped=tuple(left_out), source=root, notes=tuple(notes),
        folders={split: _range(_called(those, shards)) for split, those in used.items() if those},
    )  # fmt: skip


def expanded(pattern: str) -> list[str]:
    """The names that a pattern stands for: `{00..12}` are numbers of as many digits, `{a,b}` alternatives."""
    parts = re.split(r"\{([^{}]*)\}", pattern)
    choices = []
    for inner in parts[1::2]:
        if numbers := re.fullmatch(r"(\d+)\.\.(\d+)", inner):
            low, high = int(numbers[1]), int(numbers[2])
            if abs(high - low) >= MOST:
                raise RequestError(f"{{{inner}}}: more than {MOST:,} names")
            choices.append([f"{n:0{len(numbers[1])}}" for n in range(min(low, high), max(low, high) + 1)])
        else:
            choices.append(inner.split(","))
    between = parts[0::2]
    return [
        between[0] + "".join(one + text for one, text in zip(chosen, between[1:], strict=True))
        for chosen in itertools.product(*choices)
    ]


def _shards(root: str, key: str) -> list[str]:
    """The files that `dataset.root` stands for, sorted."""
    given = existing(os.path.expanduser(root))
    if given.is_dir():
        if not (names := [name for name in files_in(given) if name.lower().endswith(".tar")]):
            raise RequestError(f"{key}: holds no .tar file")
        return [str(given / name) for name in names]
    found = [str(given)]
    if not given.is_file():
        found = []
        for name in expanded(str(given)):
            files = sorted(glob.glob(name)) if glob.has_magic(name) else [name]
            found += [file for file in files if os.path.isfile(file)]
            if not any(map(os.path.isfile, files)):
                place = Path(name).parent
                near = nearest(Path(name).name, files_in(place)) if place.is_dir() else ""
                raise RequestError(f"{key}: no such file: {name}{near}")
    return sorted(dict.fromkeys(found))


def _splits(shards: Sequence[str], chosen: Mapping[str, str | None]) -> tuple[dict[str, str], list[str]]:
    """The split of each shard, as the user says by a pattern or as its name or its folder's says, and the unused ones.

    A split that has a pattern has the shards of the pattern alone. A shard of which neither says anything is train.
    """
    found = dict[str, str]()
    for split, pattern in chosen.items():
        if pattern is None:
            continue
        patterns = expanded(pattern)
        meant = [
            shard for shard in shards
            if any(fnmatch.fnmatch(shard, f"*/{one}") or shard == one for one in patterns)
        ]  # fmt: skip
        if not meant:
            names = [os.path.basename(shard) for shard in shards]
            raise RequestError(
                f"dataset.splits.{split}={pattern}: no shard is called so{nearest(pattern, names)}; {listed(names)}"
            )
        for shard in meant:
            if found.setdefault(shard, split) != split:
                raise RequestError(f"dataset.splits: {os.path.basename(shard)} is {found[shard]} and {split}")
    for shard in shards:
        spoken = named(Path(shard).stem) or named(Path(shard).parent.name)
        split = "train" if spoken is None else "test" if spoken.split == "eval" else spoken.split
        if chosen.get(split) is None:
            found.setdefault(shard, split)
    return {shard: found[shard] for shard in shards if shard in found}, [one for one in shards if one not in found]


def _called(some: Sequence[str], shards: Sequence[str]) -> list[str]:
    """The paths of some of the shards below the folder that all are in."""
    folder = os.path.commonpath([os.path.dirname(os.path.abspath(shard)) for shard in shards])
    return [printable(os.path.relpath(shard, folder)) for shard in some]


def _range(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) < 3 else f"{len(names):,} shards, {names[0]} … {names[-1]}"


def _samples(shard: str, key: str) -> Iterator[Sample]:
    """The samples of a shard: files of one folder whose names are the same up to the first dot."""
    try:
        found = inside(shard)
    except Refused as refused:
        raise RequestError(f"{key}: {shard}: {refused}") from refused
    if found is None or not found[0].files:
        raise RequestError(f"{key}: {shard}: is no tar archive, or has no file")
    index, samples = found[0], dict[str, dict[str, int]]()
    read = files_bytes(Path(index.path), [f"{index.path}/{path}" for path in index.files])
    assert isinstance(read, ArchiveBytes)
    for number, path in enumerate(index.files):
        stem, _, ending = posixpath.basename(path).partition(".")
        samples.setdefault(posixpath.join(posixpath.dirname(path), stem), {})[ending.lower()] = number
    for one in sorted(samples):
        yield Sample(read, one, samples[one])


def _picture(sample: Sample, image: str | None, key: str) -> str | None:
    """The ending of a sample's image, or None where it has none."""
    if image is not None:
        ending = image.lower().lstrip(".")
        return ending if ending in sample.files else None
    found = [ending for ending in sample.files if f".{ending.rpartition('.')[2]}" in ENDINGS]
    if len(found) > 1:
        raise RequestError(
            f"{key}: sample {printable(sample.name)} has several images ({', '.join(found)}); dataset.image={found[0]} "
            "says which"
        )
    return found[0] if found else None


def _label_place(sample: Sample, key: str) -> str:
    """Where the labels are, by what the first sample has."""
    if "cls" in sample.files:
        return "cls"
    content = sample.content("json") if "json" in sample.files else None
    keys = list(content) if isinstance(content, dict) else []
    found = [name for name in keys if name.lower() in (*NAMES["label"], "cls")]
    if len(found) != 1:
        inside_json = f"; its JSON has {', '.join(map(printable, keys))}" if keys else ""
        raise RequestError(
            f"{key}: where are the labels? Sample {printable(sample.name)} has {', '.join(sample.files)}{inside_json}; "
            "dataset.label=json.KEY (or the ending of a file) says it"
        )
    return f"json.{found[0]}"


def _class(sample: Sample, place: str, value: Any, classes: Sequence[str] | None, key: str) -> str:
    """What a label is called."""
    text = label_text(value, f"{key}: sample {printable(sample.name)}: {place}")
    if classes is None:
        return text
    if not re.fullmatch(r"[0-9]+", text) or int(text) >= len(classes):
        raise RequestError(
            f"dataset.classes: names {len(classes)} labels, from 0; sample {printable(sample.name)} has label "
            f"{printable(text)}"
        )
    return classes[int(text)]

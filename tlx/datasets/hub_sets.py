"""Data sets of Hugging Face: from a folder or file of theirs, or from the hub where its name is given."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tlx.config.dataset_schema import data_name
from tlx.core.errors import RequestError, nearest, precomposed, printable, reason
from tlx.core.http_download import probe
from tlx.datasets.folder_layout import existing, listed, walk
from tlx.datasets.image_decoding import UnreadableImage
from tlx.datasets.labelled_rows import LabelledRow, label_text, parts_of
from tlx.datasets.split_names import named
from tlx.datasets.splits import Parts
from tlx.datasets.table_columns import NAMES, cell_text

ENDINGS = {".parquet": "parquet", ".arrow": "arrow"}
SAVED = ("dataset_dict.json", "state.json")  # in a folder that `save_to_disk` has written


@dataclass(frozen=True)
class ColumnBytes:
    """Reads image i from a column whose cells are a file's bytes, or its path."""

    rows: Any

    def __call__(self, index: int) -> bytes:
        (cell,) = self.rows[index].values()
        content, path = (cell.get("bytes"), cell.get("path")) if isinstance(cell, Mapping) else (cell, None)
        if content is None and path is not None:
            return Path(path).read_bytes()
        if not isinstance(content, bytes):
            raise UnreadableImage("the cell is empty")
        return content


def huggingface(
    root: str | None,
    *,
    name: str = "huggingface",
    config: str | None = None,
    revision: str | None = None,
    columns: Mapping[str, str | None] | None = None,
    group: str | None = None,
    splits: Mapping[str, str | None] | None = None,
    offline: bool = False,
    fewest: int = 2,
) -> Parts:
    """A data set that the `datasets` library reads.

    `root`: a folder that `save_to_disk` has written, or one with Parquet or Arrow files, or such a file. `name`: with
    no root, what the data set is called on the hub, as `beans` or `owner/set`; `config` and `revision` are the hub's.
    `columns`: which column holds the `image` and which the `label`; None: found by their types and names. `group`: a
    column, or an expression that `split` reads. `splits`: what the set calls each split, where that does not say it.

    Raises `RequestError` where the library is missing, the set cannot be had, or columns may each be meant.
    """
    library = _library()
    given = f"dataset.root={root}" if root is not None else f"dataset.name={name}"
    if root is None and name == huggingface.__name__:
        raise RequestError(
            "dataset.name: which data set? Give its name on the Hugging Face hub, as in dataset.name=beans, or "
            "dataset.root=<a folder of it>"
        )
    found = _local(library, root, given) if root is not None else _of_hub(library, name, config, revision, offline)
    split_of, left_out = _splits(list(found), splits or {}, given)
    first = next(iter(found.values()))
    image, label = _columns(library, first, columns or {}, given)
    grouped = group is not None and group in first.column_names
    kind, order, rows = first.features[label], list[str](), list[LabelledRow]()
    if isinstance(kind, library.ClassLabel):
        order = [precomposed(str(one)) for one in kind.names]
    for own, split in split_of.items():
        table = found[own]
        read = ColumnBytes(_undecoded(library, table.select_columns([image]), image))
        groups = list(table[group]) if grouped else [""] * len(table)
        for number, (value, of_group) in enumerate(zip(list(table[label]), groups, strict=True)):
            called = f"{own}/{number}"
            text = _class(value, order, f"{given}: {called}: column '{label}'")
            group_ = "" if of_group is None else cell_text(of_group)
            rows.append(LabelledRow(f"{own}/{number:09}", called, text, split, group_, read, number))
    notes = [f"table: images from column '{image}', labels from column '{label}'; dataset.columns.<use> changes it"]
    if left_out:
        notes.append(f"splits not used: {listed(left_out)}; dataset.splits.test=NAME takes one")
    return parts_of(
        rows, given, fewest, order=order, grouped=grouped, name=data_name(name, huggingface.__name__, root),
        source=root or name, notes=tuple(map(printable, notes)),
        folders={split: own for own, split in split_of.items()},
    )  # fmt: skip


def _library() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise RequestError("dataset=huggingface needs the library datasets: pip install 'tlx-transfer[hf]'") from error
    datasets.disable_progress_bars()
    return datasets


def _local(library: Any, root: str, given: str) -> dict[str, Any]:
    """The tables in a folder or file, by the names of their splits."""
    place = existing(os.path.expanduser(root))
    if not place.exists():
        raise RequestError(f"{given}: no such folder or file; from the hub: dataset.name={root}, without dataset.root")
    try:
        if any((place / name).is_file() for name in SAVED):
            return _by_split(library, library.load_from_disk(str(place)))
        files = sorted(walk(str(place))) if place.is_dir() else [str(place)]
        tables = [file for file in files if Path(file).suffix.lower() in ENDINGS]
        kinds = {Path(file).suffix.lower() for file in tables}
        if len(kinds) != 1:
            what = "both Parquet and Arrow files" if kinds else "no Parquet or Arrow file, and nothing of save_to_disk"
            raise RequestError(f"{given}: holds {what}; dataset=image_folder reads folders of images")
        by_split = dict[str, list[str]]()
        for file in tables:
            spoken = named(Path(file).stem.partition("-")[0]) or named(Path(file).parent.name)
            by_split.setdefault(spoken.split if spoken else "train", []).append(file)
        return _by_split(library, library.load_dataset(ENDINGS[kinds.pop()], data_files=by_split))
    except RequestError:
        raise
    except Exception as error:  # of the library, and of those that it reads with
        raise RequestError(f"{given}: cannot be read ({_first_line(error)})") from error


def _of_hub(library: Any, name: str, config: str | None, revision: str | None, offline: bool) -> dict[str, Any]:
    """The tables of a set of the hub, downloaded once into the library's own folder (HF_HOME)."""
    from huggingface_hub import constants

    if Path(name).exists():  # which the library would read, whatever the hub has
        raise RequestError(f"dataset.name={name}: is a folder or file here; dataset.root={name} reads it")
    modules: list[Any] = [library.config, constants]
    before = [(one, one.HF_HUB_OFFLINE) for one in modules]
    # Where nobody answers the library would ask for half a minute; what it has fetched before it finds without.
    url = f"{constants.ENDPOINT}/api/datasets/{name}"
    silent = not offline and all(response.status is None for response in probe([url]).values())
    for one, was in before:
        one.HF_HUB_OFFLINE = was or offline or silent
    try:
        return _by_split(library, library.load_dataset(name, config, revision=revision))
    except Exception as error:  # of the library, and of those that it fetches and reads with
        how = "runtime.offline=true" if offline else f"{constants.ENDPOINT} does not answer"
        how = f"{how}, and it was not fetched before" if offline or silent else _first_line(error)
        raise RequestError(
            f"dataset.name={name}: cannot be had from the Hugging Face hub ({how}); a folder of it can be given as "
            "dataset.root"
        ) from error
    finally:
        for one, was in before:
            one.HF_HUB_OFFLINE = was


def _by_split(library: Any, found: Any) -> dict[str, Any]:
    return {"train": found} if isinstance(found, library.Dataset) else dict(found)


def _first_line(error: Exception) -> str:
    cause = error.__cause__ or error
    return printable(reason(cause if isinstance(cause, Exception) else error).splitlines()[0])[:200]


def _splits(names: Sequence[str], chosen: Mapping[str, str | None], given: str) -> tuple[dict[str, str], list[str]]:
    """Which split each of the set's own is, and the names of those that are none."""
    found = dict[str, str]()
    for split, name in chosen.items():
        if name is None:
            continue
        if name not in names:
            raise RequestError(
                f"dataset.splits.{split}={name}: {given} has no such split{nearest(name, names)}; {', '.join(names)}"
            )
        found[name] = split
    for name in names:
        about = named(name)
        split = about.split if about else "train" if len(names) == 1 else ""
        split = "test" if split == "eval" else split
        if split and split not in found.values():
            found.setdefault(name, split)
    return found, [name for name in names if name not in found]


def _columns(library: Any, table: Any, given: Mapping[str, str | None], key: str) -> tuple[str, str]:
    """The columns of images and of labels."""
    if unknown := next((name for name in given if name not in ("image", "label")), None):
        raise RequestError(
            f"dataset.columns.{unknown}: no such key{nearest(unknown, ('image', 'label'))}; image, label"
        )
    kinds, found = table.features, []
    for use, fits in (("image", _holds_images), ("label", _holds_labels)):
        name = given.get(use)
        if name is not None and name not in kinds:
            raise RequestError(
                f"dataset.columns.{use}={name}: {key} has no such column{nearest(name, list(kinds))}; "
                f"{', '.join(kinds)}"
            )
        likely = [name] if name is not None else [one for one in kinds if fits(library, one, kinds[one])]
        if use == "label":
            typed = [one for one in likely if isinstance(kinds[one], library.ClassLabel)]
            likely = typed or likely
        if len(likely) != 1:
            which = f"which column holds the {use}s: {' or '.join(likely)}?" if likely else f"no column of {use}s"
            example = (likely or list(kinds))[0]
            raise RequestError(f"{key}: {which} ({', '.join(kinds)}); dataset.columns.{use}={example} says it")
        found += likely
    return found[0], found[1]


def _holds_images(library: Any, name: str, kind: Any) -> bool:
    fields = set(kind) if isinstance(kind, dict) else set()
    return isinstance(kind, library.Image) or "bytes" in fields or getattr(kind, "dtype", "") == "binary"


def _holds_labels(library: Any, name: str, kind: Any) -> bool:
    plain = "".join(filter(str.isalnum, name.lower()))
    return isinstance(kind, library.ClassLabel) or (plain in NAMES["label"] and isinstance(kind, library.Value))


def _undecoded(library: Any, table: Any, image: str) -> Any:
    """The column with the bytes of its files, where the library would decode them."""
    if isinstance(table.features[image], library.Image):
        return table.cast_column(image, library.Image(decode=False))
    return table


def _class(value: Any, order: Sequence[str], where: str) -> str:
    """What a label is called."""
    if value is None or (order and isinstance(value, int) and value < 0):
        raise RequestError(f"{where}: has no label; a split without labels is left out by naming those that have them")
    return order[value] if order and isinstance(value, int) else label_text(value, where)

"""Folders that are taken for classes and are none: splits, the images and labels of another task."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from tlx.core.errors import RequestError
from tlx.datasets.folder_layout import alike, content, has_pictures, listed, names_in, tables, walk
from tlx.datasets.split_names import BESIDE, LABELS, PLAIN, named, plain, several_splits


def check_classes(root: Path, place: Path, names: Sequence[str], key: str) -> None:
    """Refuses folders that look like splits, or like the images and labels of another task, where classes should be.

    `place`: the folder of the training split, `names`: its sub-folders.

    Raises:
        RequestError: they are named like splits, hold splits, or hold the same sub-folders; it says what was seen and
            what to type, also where they are classes after all (`dataset.splits.train`).
    """
    choice = f"dataset.splits.train={place.relative_to(root).as_posix()}"
    wrong = _named_like_splits(root, place, names) or _pictures_and_labels(names)
    if not wrong:
        inside = {name: _class_names(place / name) for name in names}
        wrong = _holding_splits(place, inside) or _holding_the_same(inside, root, place)
    if wrong:
        raise RequestError(f"{key}: {wrong}; if these are the classes themselves: {choice}")


def _named_like_splits(root: Path, place: Path, names: Sequence[str]) -> str:
    """What is wrong with folders of images called `train` and `test`; a class may have one such name among others."""
    speaking = [name for name in names if named(name)]
    others = [name for name in names if name not in speaking and not plain(name, PLAIN | BESIDE)]
    several = several_splits(speaking)
    lists = tables(root) + (tables(place) if root != place else [])
    if not (several and (lists or not others)) and not (speaking and lists and not others):
        return ""
    seen = listed([f"{name}/ ({content(place / name)})" for name in speaking])
    one = len(speaking) == 1
    beside = (
        f"; beside {'it' if one else 'them'}: {listed(lists)}; dataset=csv reads labels from a table" if lists else ""
    )
    return (
        f"{seen} {'is' if one else 'are'} named like {'a split' if one else 'splits'} but {'has' if one else 'have'} "
        f"no class folders{beside}; put each image into a folder of its class, as in {speaking[-1]}/<class>/<image>"
    )


def _pictures_and_labels(names: Sequence[str]) -> str:
    pictured = [name for name in names if plain(name, PLAIN)]
    labelled = [name for name in names if plain(name, PLAIN | LABELS) and name not in pictured]
    if not pictured or not labelled or len(pictured) + len(labelled) < len(names):
        return ""
    seen = listed([f"{name}/" for name in names])
    return (
        f"{seen} are named like images and their labels, not like classes; put each image into a folder of its class, "
        "as in <class>/<image>, or list them in a table (dataset=csv dataset.root=labels.csv)"
    )


def _holding_splits(place: Path, inside: Mapping[str, set[str]]) -> str:
    holding = [name for name, inner in inside.items() if several_splits(inner)]
    if not holding:
        return ""
    first = holding[0]
    splits = sorted(name for name in inside[first] if named(name))
    if len(holding) == 1:
        found = listed([f"{name}/" for name in splits])
        return f"{first}/ holds splits, {found} (did you mean dataset.root={place / first}?)"
    return (
        f"{listed([f'{name}/' for name in holding])} hold splits ({listed([f'{first}/{name}/' for name in splits])}); "
        f"the splits' folders go outside, as in {splits[-1]}/{first}/<image>"
    )


def _holding_the_same(inside: Mapping[str, set[str]], root: Path, place: Path) -> str:
    first = dict[str, str]()  # sub-folder's name → the first class that has it
    for name, inner in inside.items():
        for other in dict.fromkeys(first[one] for one in sorted(inner) if one in first):
            if alike(inner, inside[other]):
                shared = listed([f"{one}/" for one in sorted(inner & inside[other])])
                by_size = sorted((place / other, place / name), key=_files, reverse=True)
                trains, tests = (folder.relative_to(root).as_posix() for folder in by_size)
                return (
                    f"{other}/ and {name}/ hold folders of the same names ({shared}): they look like splits, not like "
                    f"classes; say which is which, as in dataset.splits.train={trains} "
                    f"dataset.splits.test={tests}"
                )
        for one in inner:
            first.setdefault(one, name)
    return ""


def _files(folder: Path) -> int:
    return sum(1 for _ in walk(str(folder)))


def _class_names(folder: Path) -> set[str]:
    """The sub-folders of a folder that has no pictures of its own; none where it has, or where their names say nothing
    (`images/` in every class)."""
    inner = names_in(folder)
    if not inner or has_pictures(folder):
        return set()
    return {name for name in inner if not plain(name, PLAIN | BESIDE)}

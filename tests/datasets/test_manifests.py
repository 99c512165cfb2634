"""Tables of images: columns by name, splits, groups; what is wrong in one line with the row's number."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import tlx
from tests.datasets.test_exact_copies import FAST, noise
from tlx.cli.main import main
from tlx.config.compose import compose, without_hydra
from tlx.config.dataset_schema import TABLES, DatasetConfig
from tlx.config.identity import identity
from tlx.config.validation import checked
from tlx.core.errors import RequestError
from tlx.datasets import csv, table_rows
from tlx.datasets.readers import image_folder
from tlx.datasets.splits import Parts, split

Rows = Sequence[Sequence[Any]]


def files(folder: Path, *names: str) -> Path:
    """Files that look like images from outside: a reader opens none."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return files(tmp_path, *(f"photos/{i}.jpg" for i in range(8)))


def rows(count: int = 8) -> list[list[Any]]:
    return [[f"photos/{i}.jpg", "cat" if i % 2 else "dog"] for i in range(count)]


def table(folder: Path, header: Sequence[str], cells: Rows, name: str = "labels.csv") -> str:
    """Writes a table in the format that its name says; its path."""
    file = folder / name
    if name.endswith(".parquet"):
        from pyarrow import parquet
        from pyarrow import table as arrow

        parquet.write_table(arrow({title: [row[i] for row in cells] for i, title in enumerate(header)}), file)
    elif name.endswith(".jsonl"):
        lines = [json.dumps(dict(zip(header, row, strict=True))) for row in cells]
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    else:
        mark = "\t" if name.endswith(".tsv") else ","
        text = "\n".join(mark.join(map(str, row)) for row in [header, *cells])
        file.write_text(text + "\n", encoding="utf-8")
    return str(file)


def refused(root: str, **options: Any) -> str:
    with pytest.raises(RequestError) as caught:
        csv(root, **options)
    text = str(caught.value)
    assert "\n" not in text
    return text


def content(parts: Parts) -> dict[str, list[tuple[str, str]]]:
    sets = {name: getattr(parts, name) for name in ("train", "val", "test")}
    return {
        name: [(path, parts.classes[label]) for path, label in zip(one.names, one.labels.tolist(), strict=True)]
        for name, one in sets.items()
        if one is not None
    }


# ---------------------------------------------------------------- formats


@pytest.mark.parametrize("name", ["labels.csv", "labels.tsv", "labels.jsonl", "labels.parquet"])
def test_each_format_gives_the_same_data_set_called_as_its_file(photos: Path, name: str) -> None:
    parts = csv(table(photos, ["file", "label"], rows(), name))
    assert (parts.name, parts.classes) == ("labels", ("cat", "dog"))
    assert content(parts) == {"train": [(path, label) for path, label in rows()]}
    assert all(Path(file).is_file() for file in parts.train.files)
    assert set(table_rows.FORMATS) == set(TABLES)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_csv_file_is_read_whatever_program_wrote_it(tmp_path: Path, encoding: str, mark: str, end: str) -> None:
    names = ["Bilder/ä 1.jpg", 'a "b".jpg', "two\nlines.jpg", "x,y;z.jpg", " blank.jpg", "sub/win.jpg"]
    files(tmp_path, *names)
    shown = [f'"{name.replace(chr(34), chr(34) * 2)}"' for name in names]
    shown[5] = r"sub\win.jpg"
    lines = [f"Image{mark}Class", *(f"{name}{mark}{'ab'[i % 2]}" for i, name in enumerate(shown)), mark, ""]
    (tmp_path / "t.csv").write_bytes(end.join(lines).encode(encoding))
    parts = csv(str(tmp_path / "t.csv"))
    assert dict(content(parts)["train"]) == {name: "ab"[i % 2] for i, name in enumerate(names)}


def test_excels_line_of_the_separator_is_no_header(photos: Path) -> None:
    (photos / "t.csv").write_text("sep=;\r\npath;label\r\nphotos/1.jpg;a\r\nphotos/2.jpg;b\r\nphotos/0.jpg;\r\n")
    assert "row 5: photos/0.jpg: has no label" in refused(str(photos / "t.csv"))
    assert len(csv(str(photos / "t.csv"), on_error="skip").train) == 2


def test_the_order_of_rows_and_where_files_lie_change_nothing(photos: Path, tmp_path: Path) -> None:
    one = split(csv(table(photos, ["path", "label"], rows())), DatasetConfig(), 0, decode=())
    moved = Path(shutil.copytree(photos / "photos", tmp_path / "elsewhere" / "photos"))
    again = csv(table(photos, ["path", "label"], rows()[::-1]), images=str(moved.parent))
    absolute = [[str(photos / path), label] for path, label in rows()]
    assert again.train.files[0].startswith(str(moved))
    for other in (again, csv(table(photos, ["path", "label"], absolute))):
        assert split(other, DatasetConfig(), 0, decode=()).fingerprint == one.fingerprint
    config = checked(without_hydra(compose(["dataset=csv", "dataset.root=/a", "dataset.images=/b"])))
    other = checked(without_hydra(compose(["dataset=csv", "dataset.root=/c", "dataset.images=2024"])))
    assert identity(config, "x", "y") == identity(other, "x", "y")


# ---------------------------------------------------------------- columns


@pytest.mark.parametrize("path", ["path", "image", "File Name", "filename", "file_name", "FILE", "id", "image_id"])
@pytest.mark.parametrize("label", ["label", "Class", "category", "target"])
def test_columns_are_known_by_their_names_and_said(photos: Path, path: str, label: str) -> None:
    parts = csv(table(photos, [path, label], rows()))
    assert parts.notes[0].startswith(f"table: images from column '{path}', labels from column '{label}'; dataset.col")


def test_an_index_and_other_columns_are_named_and_not_used(photos: Path) -> None:
    parts = csv(
        table(photos, ["", "id", "image", "label", "age", "weight"], [[i, i, *rows()[i], 3, 1] for i in range(8)])
    )
    assert "images from column 'image', labels from column 'label'; not used: id, age" in parts.notes[0]
    assert "weights of column 'weight' are not used" in parts.notes[1]


COLUMNS: dict[str, tuple[list[str], dict[str, Any], str]] = {
    "both": (
        ["path", "image", "label"],
        {},
        "which column is the path: path or image? dataset.columns.path=path says it",
    ),
    "two labels": (["path", "class", "label"], {}, "which column is the label: class or label?"),
    "no path": (
        ["one", "two", "label"],
        {},
        "no column is known to hold the paths of images: one, two, label; dataset.",
    ),
    "no label": (
        ["path", "a", "b"],
        {},
        "no column is known to hold the labels: path, a, b; dataset.columns.label=NAME",
    ),
    "no header": (["a.jpg", "cat", "3"], {}, "the first row must have the columns' names, as in path,label"),
    "unknown": (["path", "x", "label"], {"columns": {"label": "labl"}}, "has no such column (did you mean 'label'?)"),
    "no such use": (["path", "x", "label"], {"columns": {"lable": "x"}}, "no such key (did you mean 'label'?)"),
    "twice": (["path", "label", "label"], {}, "two columns are called 'label'"),
    "group": (["path", "patient", "label"], {"group": "patiant"}, "no such column (did you mean 'patient'?), and as a"),
}


@pytest.mark.parametrize("case", COLUMNS)
def test_columns_that_are_not_clear_are_refused_with_what_to_say(photos: Path, case: str) -> None:
    header, options, message = COLUMNS[case]
    assert message in refused(table(photos, header, [[f"photos/{i}.jpg", i + 7, "b"] for i in range(4)]), **options)


def test_a_column_that_is_named_is_taken(photos: Path) -> None:
    file = table(photos, ["path", "image", "1", "label"], [["x", *rows()[i], "y"] for i in range(8)])
    assert csv(file, columns={"path": "image", "label": "1"}).classes == ("cat", "dog")
    config = checked(without_hydra(compose(["dataset=csv", "dataset.columns.label=1", "dataset.group=2"])))
    assert (config.dataset.reader["columns"]["label"], config.dataset.group) == ("1", "2")


def test_ids_stand_for_the_one_file_that_is_called_so(photos: Path) -> None:
    parts = csv(table(photos, ["id", "label"], [[i, "ab"[i % 2]] for i in range(8)]), images=str(photos / "photos"))
    assert parts.train.names == tuple(f"{i}.jpg" for i in range(8))
    assert "table: 8 paths have no ending; each stands for the one file called so" in parts.notes
    files(photos, "photos/1.png")
    assert "row 3: 1: stands for several files: 1.jpg, 1.png" in refused(
        table(photos, ["id", "label"], [[0, "a"], [1, "b"]]), images=str(photos / "photos")
    )


def test_numbers_are_classes_in_their_order(photos: Path) -> None:
    cells = [[f"photos/{i}.jpg", float([10, 9, 2, 1][i % 4])] for i in range(8)]
    for name in ("t.parquet", "t.jsonl"):
        assert csv(table(photos, ["path", "label"], cells, name)).classes == ("1", "2", "9", "10")


# ---------------------------------------------------------------- rows that are wrong


def with_row(row: Sequence[Any], place: int = 4) -> list[list[Any]]:
    return [*rows()[:place], list(row), *rows()[place:]]


WRONG: dict[str, tuple[Rows, str]] = {
    "missing": (with_row(["photos/x.jpg", "cat"]), "row 6: photos/x.jpg: no such file in "),
    "missing, near": (with_row(["photos/3.jpeg", "cat"]), "(did you mean '3.jpg'?)"),
    "missing, twice": (
        [["x.jpg", "cat"], *rows(), ["y.jpg", "cat"], ["z.jpg", "dog"]],
        "row 2: x.jpg: no such file",
    ),
    "folder": (with_row(["photos", "cat"]), "row 6: photos: is a folder, not an image"),
    "url": (with_row(["https://x.org/a.jpg", "cat"]), "row 6: https://x.org/a.jpg: is a URL; nothing is fetched"),
    "no label": (with_row(["photos/7.jpg", " "])[:5], "row 6: photos/7.jpg: has no label"),
    "no path": (with_row(["", "cat"]), "row 6: has no path"),
    "again": (with_row(["photos/1.jpg", "cat"]), "row 6: photos/1.jpg: is in row 3 already"),
    "again, in other words": (with_row([r".\photos\1.jpg", "cat"]), "row 6: photos/1.jpg: is in row 3 already"),
    "another label": (with_row(["photos/1.jpg", "cow"]), "row 6: photos/1.jpg: has label 'cow', but 'cat' in row 3"),
    "too many cells": (with_row(["photos/7.jpg", "a,b"]), "row 6: has 3 cells, but there are 2 columns"),
    "a quote too many": (with_row(['"photos/7.jpg', "a"]), "is no row of a table"),
    "one class": ([[path, "cat"] for path, _ in rows()], "one class only, 'cat'; two or more are needed"),
    "no row": ([], "has no row"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_with_a_row_is_one_line_with_its_number(photos: Path, case: str) -> None:
    cells, message = WRONG[case]
    assert message in refused(table(photos, ["path", "label"], cells))


def test_all_kinds_are_in_the_line_and_can_be_left_out(photos: Path) -> None:
    cells = [*rows(), ["x.jpg", "cat"], ["y.jpg", "cat"], ["photos/1.jpg", "cat"]]
    file = table(photos, ["path", "label"], cells)
    said = refused(file)
    assert "row 10: x.jpg: no such file" in said
    assert "and 1 more (row 11); row 12: photos/1.jpg: is in row 3 already; correct the table, or leave" in said
    parts = csv(file, on_error="skip")
    assert content(parts) == {"train": [(path, label) for path, label in rows()]}
    assert [why.partition(":")[0] for _, why in parts.skipped] == ["row 10", "row 11", "row 12"]
    assert "but 'cat' in row 3" in refused(
        table(photos, ["path", "label"], with_row(["photos/1.jpg", "cow"])), on_error="skip"
    )


@pytest.mark.parametrize(
    ("name", "written", "message"),
    [
        ("t.csv", b"", "is empty"),
        (
            "t.csv",
            "path,label\nphotos/1.jpg,\xe4\n".encode("latin-1"),
            "line 2 is not in UTF-8; save the table as UTF-8",
        ),
        ("t.jsonl", b'{"path": "photos/1.jpg", "label": "a"}\n{"path": \n', "row 2: is no JSON ("),
        ("t.jsonl", b'{"path": "photos/1.jpg", "label": "a"}\n\n[1]\n', "row 3: must be an object, as in {"),
        ("t.parquet", b"PAR2", "cannot be read as Parquet ("),
        ("t.xlsx", b"PK", "is no table that can be read; its name must end in .csv, .tsv"),
    ],
)
def test_files_that_are_no_table_are_one_line(photos: Path, name: str, written: bytes, message: str) -> None:
    (photos / name).write_bytes(written)
    assert message in refused(str(photos / name))


def test_a_place_that_is_no_table_is_one_line(photos: Path) -> None:
    file = table(photos, ["path", "label"], rows())
    assert f"is a folder; give the table's file (did you mean dataset.root={file}?)" in refused(str(photos))
    assert "no such file (did you mean 'labels.csv'?)" in refused(str(photos / "label.csv"))
    assert "which table?" in refused(None)  # type: ignore[arg-type]
    assert "dataset.images=/nowhere: no such folder" in refused(file, images="/nowhere")
    table(photos, ["path", "label"], [["1.jpg", "a"], ["2.jpg", "b"]])
    assert f"(did you mean dataset.images={photos / 'photos'}?)" in refused(file)
    with pytest.raises(RequestError, match=r"is a file; give the folder .*; dataset=csv reads a table"):
        image_folder(file)


# ---------------------------------------------------------------- several labels


MULTI: dict[str, tuple[str, list[str], Rows, str]] = {
    "lists": ("t.jsonl", ["path", "labels"], [["photos/0.jpg", ["a"]], ["photos/1.jpg", ["a", "b"]]], "row 2: has 2"),
    "lists in Parquet": ("t.parquet", ["path", "label"], [["photos/0.jpg", ["a", "b"]]], "row 1: has 2 labels"),
    "lists as text": ("t.tsv", ["path", "label"], [["photos/0.jpg", "['a', 'b']"]], "row 2: has 2 labels in column"),
    "joined": (
        "t.csv",
        ["path", "label"],
        [["photos/0.jpg", "a"], ["photos/1.jpg", "b"], ["photos/2.jpg", "a|b"]],
        "row 4: has several labels in column 'label' (a|b)",
    ),
    "two columns are 1": (
        "t.csv",
        ["path", "sick", "old"],
        [["photos/0.jpg", 1, 0], ["photos/1.jpg", 1, 1]],
        "row 3: 2 of the columns sick, old are 1: multi-label",
    ),
    "no column is 1": (
        "t.csv", ["path", "sick", "old"], [["photos/0.jpg", 1, 0], ["photos/1.jpg", 0, 0]], "row 3: none of sick, old"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", MULTI)
def test_several_labels_are_said_at_once_with_what_can_be_done(photos: Path, case: str) -> None:
    name, header, cells, message = MULTI[case]
    said = refused(table(photos, header, cells, name))
    assert message in said
    assert "multi-label, which is not trained here: an image has one label; " in said


def test_one_of_several_labels_can_be_trained_yes_or_no(photos: Path) -> None:
    file = table(photos, ["path", "sick", "old"], [[f"photos/{i}.jpg", i % 2, i // 4] for i in range(8)])
    assert csv(file, columns={"label": "sick"}).classes == ("0", "1")


def test_columns_of_which_one_is_1_and_lists_of_one_are_a_label(photos: Path) -> None:
    hot = csv(table(photos, ["path", "sick", "well"], [[f"photos/{i}.jpg", f"{i % 2}.0", 1 - i % 2] for i in range(8)]))
    assert hot.classes == ("sick", "well")
    assert hot.train.labels.tolist() == [1, 0] * 4
    assert "labels from the one that is 1 of the columns sick, well" in hot.notes[0]
    assert csv(table(photos, ["path", "label"], [[p, [label]] for p, label in rows()], "t.jsonl")).classes == (
        "cat",
        "dog",
    )


def test_a_sign_within_labels_does_not_make_them_several(photos: Path) -> None:
    labels = ["tench, Tinca tinca", "hen", "bulbul; small", "A|B"]
    cells = [[f"photos/{i}.jpg", labels[i % 4]] for i in range(8)]
    assert csv(table(photos, ["path", "label"], cells, "t.tsv")).classes == tuple(sorted(labels))


# ---------------------------------------------------------------- splits and groups


def test_a_column_says_the_splits_in_any_usual_spelling(photos: Path) -> None:
    names = ["Train", "training", "train", "train", "val", "validation", "TEST", "testing"]
    file = table(photos, ["path", "label", "split"], [[*row, name] for row, name in zip(rows(), names, strict=True)])
    parts = csv(file)
    assert {name: len(found) for name, found in content(parts).items()} == {"train": 4, "val": 2, "test": 2}
    assert parts.folders == {"train": "split=Train", "val": "split=val", "test": "split=TEST"}
    assert set(content(csv(file, splits={"train": "."}))) == {"train"}


def test_a_split_that_is_not_known_is_refused_and_can_be_named(photos: Path) -> None:
    names = ["train"] * 6 + ["b", "b"]
    file = table(photos, ["path", "label", "split"], [[*row, name] for row, name in zip(rows(), names, strict=True)])
    assert (
        "row 8: 'b' is no split (column 'split'); it must be train, val or test, or named as in dataset.splits.test=b"
        in (refused(file))
    )
    assert len(csv(file, splits={"test": "b"}).test or ()) == 2
    assert "dataset.splits.val=c: column 'split' has no such value" in refused(file, splits={"val": "c"})
    assert "has no column of splits" in refused(table(photos, ["path", "label"], rows()), splits={"val": "c"})
    empty = [[*row, name] for row, name in zip(rows(), ["train"] * 5 + ["", "test", "test"], strict=True)]
    assert "row 7: is empty (column 'split')" in refused(table(photos, ["path", "label", "split"], empty))
    tested = [["photos/0.jpg", "a", "test"], ["photos/1.jpg", "b", "test"]]
    file = table(photos, ["path", "label", "split"], tested)
    assert "no row is of the training split" in refused(file)
    assert len(csv(file, fewest=1).test or ()) == 2
    other = [*([path, label, "train"] for path, label in rows()[:6]), ["photos/7.jpg", "dgo", "test"]]
    assert "row 8: label 'dgo' is in no row of the training split (did you mean 'dog'?)" in refused(
        table(photos, ["path", "label", "split"], other)
    )


@pytest.mark.parametrize(("header", "group"), [("group", None), ("patient", "patient"), ("7", "7")])
def test_a_column_says_the_groups(photos: Path, header: str, group: str | None) -> None:
    cells = [[*row, i // 2] for i, row in enumerate(rows())]
    parts = csv(table(photos, ["path", "label", header], cells), group=group)
    assert parts.train.groups == tuple(str(i // 2) for i in range(8))
    data = split(parts, DatasetConfig(group=group), 0, decode=())
    sets = [set(one.groups or ()) for one in (data.train, data.val, data.test)]
    assert sum(map(len, sets)) == len(set.union(*sets)) == 4
    assert csv(table(photos, ["path", "label", header], cells), group="none").train.groups is None


# ---------------------------------------------------------------- runs


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Pictures of six patients in a folder, and a table of them."""
    names = [f"pics/p{patient}_{i}.png" for patient in range(6) for i in range(4)]
    noise(tmp_path, *names)
    table(tmp_path, ["file", "label", "patient"], [[f"p{i // 4}_{i % 4}.png", "ab"[i % 2], i // 4] for i in range(24)])
    return tmp_path


def test_a_run_an_evaluation_and_a_prediction_of_a_table(
    pictures: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(pictures)
    words = ["dataset=csv", "dataset.root=labels.csv", "dataset.images=pics", "dataset.group=patient"]
    assert main([*FAST, *words, "--dry-run"]) == 0
    planned = capsys.readouterr().out
    assert "table: images from column 'file', labels from column 'label', groups from column 'patient'" in planned
    assert "groups: " in planned
    summary = tlx.run([*FAST, *words])
    assert Path(summary.folder).name.endswith("-small_cnn-labels-feature_extraction")
    assert any(line.startswith("groups: ") and "none in two splits" in line for line in summary.notes)
    assert main(["evaluate", "latest", *words, "--part", "test"]) == 0
    said = capsys.readouterr().out
    assert "none of these images, in training or validation" in said
    assert f"{summary.test_accuracy:.1%}" in said
    assert main(["predict", "latest", "pics/p0_0.png"]) == 0
    assert main([*FAST, "dataset=csv", "dataset.root=labels.csv"]) == 2
    assert "labels.csv: row 2: p0_0.png: no such file in" in capsys.readouterr().err


def test_folds_of_a_folder_by_an_expression_have_no_group_twice(pictures: Path) -> None:
    for i in range(24):
        name = f"p{i // 4}_{i % 4}.png"
        (pictures / "folder" / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        shutil.copy(pictures / "pics" / name, pictures / "folder" / "ab"[i % 2] / name)
    common = {"group": r"p\d+", "folds": 3}
    folder = image_folder(str(pictures / "folder"))
    dealt = [split(folder, DatasetConfig(fold=fold, **common), 0) for fold in range(3)]  # type: ignore[arg-type]
    held_out = [set(data.test.groups or ()) for data in dealt]
    assert sum(map(len, held_out)) == len(set.union(*held_out)) == 6

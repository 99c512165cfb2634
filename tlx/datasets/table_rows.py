"""The rows of a table: CSV, TSV, JSON Lines and Parquet, as cells by column, each row with its number in the file."""

import codecs
import csv
import io
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tlx.core.errors import RequestError, printable, reason

DELIMITERS = ",;\t|"
Columns = dict[str, list[Any]]


@dataclass(frozen=True)
class TableRows:
    """A table: `columns` holds each column's cells, `numbers` each row's place in the file.

    A spreadsheet numbers them so: the header of a CSV file is row 1. A cell is text, a number, a list, or None where
    it is empty. `unread`: columns that hold no such thing (a Parquet file's bytes).
    """

    columns: Columns
    numbers: Sequence[int]
    unread: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.numbers)


def rows_of(file: Path, key: str) -> TableRows:
    """The rows of a table, in the format that the end of its name says.

    `key`: of the configuration, with its value, for messages. Raises `RequestError` for another format, and for what
    cannot be read, with the row's number.
    """
    read = FORMATS.get(file.suffix.lower())
    if read is None:
        raise RequestError(f"{key}: is no table that can be read; its name must end in {', '.join(FORMATS)}")
    try:
        rows = read(file, key)
    except OSError as error:
        raise RequestError(f"{key}: cannot be read: {reason(error).lower()}") from error
    if not len(rows):
        raise RequestError(f"{key}: has no row")
    return rows


def _csv(file: Path, key: str) -> TableRows:
    text = _text(file.read_bytes(), key)
    said, newline, rest = text.partition("\n")
    first = 1
    if said.strip().lower().startswith("sep=") and newline:  # as Excel writes it
        delimiter, text, first = said.strip()[4:] or "\t", rest, 2
    else:
        delimiter = "\t" if file.suffix.lower() in (".tsv", ".tab") else _delimiter(text)
    records = _records(text, delimiter, key, first)
    try:
        _, header = next(records)
    except StopIteration:
        raise RequestError(f"{key}: is empty") from None
    names = [name.strip() for name in header]
    if twice := next((name for name in names if name and names.count(name) > 1), ""):
        raise RequestError(f"{key}: two columns are called '{printable(twice)}'; give each its own name")
    numbers, cells = [], [list[Any]() for _ in names]
    for number, record in records:
        if not any(cell.strip() for cell in record):
            continue
        if len(record) != len(names):
            raise RequestError(
                f"{key}: row {number}: has {len(record)} cells, but there are {len(names)} columns; a cell with a "
                f"{_NAMES.get(delimiter, delimiter)} in it needs quotes"
            )
        numbers.append(number)
        for column, cell in zip(cells, record, strict=True):
            column.append(cell if cell.strip() else None)
    return TableRows(dict(zip(names, cells, strict=True)), numbers)


_NAMES = {",": "comma", ";": "semicolon", "\t": "tab"}


def _text(content: bytes, key: str) -> str:
    """The text of a file in UTF-8, or in UTF-16 where it begins so; without the mark at its beginning (BOM)."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16", "replace")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise RequestError(f"{key}: line {line} is not in UTF-8; save the table as UTF-8 (CSV UTF-8)") from error


def _delimiter(text: str) -> str:
    """What separates the cells: that by which the header has most, among those that give the next row as many."""

    def cells(delimiter: str) -> tuple[bool, int]:
        records = filter(None, csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
        try:
            header, second = next(records, []), next(records, None)
        except csv.Error:
            return False, 0
        return len(header) > 1 and (second is None or len(second) == len(header)), len(header)

    return max(DELIMITERS, key=cells)


def _records(text: str, delimiter: str, key: str, first: int) -> Iterator[tuple[int, list[str]]]:
    """Number and cells of each record; a cell in quotes may have several lines."""
    number = first - 1
    try:
        for number, record in enumerate(
            csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True), first
        ):
            if record:
                yield number, record
    except (csv.Error, TypeError, ValueError) as error:
        raise RequestError(f"{key}: row {number + 1}: is no row of a table ({reason(error)})") from error


def _json_lines(file: Path, key: str) -> TableRows:
    numbers, records = list[int](), list[Mapping[str, Any]]()
    for number, line in enumerate(_text(file.read_bytes(), key).split("\n"), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            raise RequestError(f"{key}: row {number}: is no JSON ({reason(error)})") from error
        if not isinstance(record, dict):
            raise RequestError(f'{key}: row {number}: must be an object, as in {{"path": "a.jpg", "label": "cat"}}')
        numbers.append(number)
        records.append(record)
    names = dict.fromkeys(name for record in records for name in record)
    return TableRows({name: [_cell(record.get(name)) for record in records] for name in names}, numbers)


def _parquet(file: Path, key: str) -> TableRows:
    try:
        from pyarrow import ArrowException, parquet, types
    except ImportError as error:
        raise RequestError(f"{key}: a Parquet file needs pyarrow: pip install pyarrow") from error
    try:
        with parquet.ParquetFile(file) as table:
            schema = table.schema_arrow
            unread = [field.name for field in schema if not _of_cells(field.type, types)]
            names = [name for name in schema.names if name not in unread]
            read = table.read(columns=names)
            columns = {name: [_cell(one) for one in read.column(name).to_pylist()] for name in names}
    except ArrowException as error:
        raise RequestError(f"{key}: cannot be read as Parquet ({reason(error)})") from error
    return TableRows(columns, range(1, read.num_rows + 1), tuple(unread))


def _of_cells(kind: Any, types: Any) -> bool:
    """Whether a type of Arrow's is read: text, numbers and lists are, structures and bytes are not."""
    some = types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind)
    return not some and (not types.is_nested(kind) or types.is_list(kind) or types.is_large_list(kind))


def _cell(value: Any) -> Any:
    """A value as a cell: None for an empty one."""
    if (isinstance(value, float) and math.isnan(value)) or (isinstance(value, str) and not value.strip()):
        return None
    return value


FORMATS: dict[str, Callable[[Path, str], TableRows]] = {
    **dict.fromkeys((".csv", ".tsv", ".tab", ".txt"), _csv),
    **dict.fromkeys((".jsonl", ".ndjson"), _json_lines),
    **dict.fromkeys((".parquet", ".pq"), _parquet),
}

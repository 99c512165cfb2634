"""Files of features: Parquet, written as images come, or NumPy's archive."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tlx.core.atomic_files import atomic
from tlx.core.errors import RequestError, unicode

if TYPE_CHECKING:
    from tlx.inference.predictor import Prediction

__all__ = ["SUFFIXES", "feature_file"]
SUFFIXES = (".parquet", ".npz")
ROWS = 1_024  # images of a row group
Write = Callable[["Prediction", NDArray[np.float32]], None]


@contextlib.contextmanager
def feature_file(target: Path, classes: Sequence[str]) -> Iterator[Write]:
    """What writes an image's row: its path, features (float32), prediction and probability.

    The file is whole or absent.

    Raises:
        RequestError: pyarrow is not installed, or the file cannot be written.
    """
    with (
        atomic(target, "--out FILE") as path,
        (_parquet if target.suffix == SUFFIXES[0] else _archive)(path, classes) as write,
    ):
        yield write


@contextlib.contextmanager
def _parquet(path: Path, classes: Sequence[str]) -> Iterator[Write]:
    try:
        import pyarrow
        from pyarrow.parquet import ParquetWriter
    except ImportError as error:
        raise RequestError("--out FILE.parquet needs pyarrow: pip install pyarrow; FILE.npz needs nothing") from error
    held: list[tuple[Prediction, NDArray[np.float32]]] = []
    writer: Any = None

    def flush() -> None:
        nonlocal writer
        values = pyarrow.array(np.concatenate([features for _, features in held]), pyarrow.float32())
        table = pyarrow.table(
            {
                "file": [unicode(p.file) for p, _ in held],
                "features": pyarrow.FixedSizeListArray.from_arrays(values, len(held[0][1])),
                "prediction": [unicode(p.prediction) for p, _ in held],
                "probability": pyarrow.array([p.probability for p, _ in held], pyarrow.float32()),
            }
        )
        writer = writer or ParquetWriter(path, table.schema)
        writer.write_table(table)
        held.clear()

    def write(prediction: "Prediction", features: NDArray[np.float32]) -> None:
        held.append((prediction, features))
        if len(held) == ROWS:
            flush()

    try:
        yield write
        if held:
            flush()
    finally:
        if writer is not None:
            writer.close()


@contextlib.contextmanager
def _archive(path: Path, classes: Sequence[str]) -> Iterator[Write]:
    rows: list[tuple[Prediction, NDArray[np.float32]]] = []
    yield lambda prediction, features: rows.append((prediction, features))
    np.savez(
        path,
        files=np.array([unicode(p.file) for p, _ in rows]),
        features=np.stack([features for _, features in rows]),
        prediction=np.array([unicode(p.prediction) for p, _ in rows]),
        probability=np.array([p.probability for p, _ in rows], np.float32),
        classes=np.array([unicode(name) for name in classes]),
    )

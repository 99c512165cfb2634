"""Tables for Python: pandas, imported when it is requested."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tlx.core.errors import RequestError

if TYPE_CHECKING:
    from pandas import DataFrame


def frame(rows: Iterable[Mapping[str, Any] | Sequence[Any]], columns: Sequence[str] | None = None) -> "DataFrame":
    """A `pandas.DataFrame` of the rows.

    Raises:
        RequestError: pandas is not installed.
    """
    try:
        from pandas import DataFrame
    except ImportError as error:
        raise RequestError("a table for Python needs pandas: pip install pandas") from error
    return DataFrame(list(rows), columns=None if columns is None else list(columns))

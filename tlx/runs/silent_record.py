"""The record of a rank beside the first: it knows where the run stands, and writes nothing."""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tlx.config.schema import Config
from tlx.datasets.images import Images
from tlx.datasets.splits import Data
from tlx.runs.run_recorder import KEPT, Record

if TYPE_CHECKING:
    from torch import nn

    from tlx.training.metrics import Scores
    from tlx.training.train_state import TrainState


class Silent(Record):
    """Where the run stands, on a rank beside the first."""

    writes = False

    def open(
        self,
        name: str,
        config: Config,
        plan: list[dict[str, Any]],
        data: Data,
        known: Mapping[str, Any],
        before: dict[str, Any] | None,
        served: Counter[str],
    ) -> None:
        self.opened = True
        self.rows = list(before["rows"]) if before else []
        kept = {key: before["summary"][key] for key in KEPT & before["summary"].keys()} if before else {}
        for key, value in {**known, **kept}.items():
            setattr(self.summary, key, value)

    def keep(self, net: "nn.Module | None" = None, state: "TrainState | None" = None) -> None: ...

    def flush(self) -> None: ...

    @property
    def kept(self) -> int:
        return len(self.rows)

    def row(self, row: Mapping[str, Any]) -> None:
        self.rows.append(dict(row))

    def look(self, when: str, scores: "Scores", images: Images, *, table: bool) -> None: ...

    def close(self, scores: "Scores", images: Images, state: "TrainState", status: str = "finished") -> None: ...

    @contextmanager
    def ending(self, name: str) -> Iterator[None]:
        yield

"""The MLflow run of a run's folder: opened, ended, and in `mlflow.json` what no other file of the folder says."""

import json
import logging
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tlx.core.errors import shown
from tlx.datasets.splits import Data
from tlx.runs.run_summary import Summary
from tlx.tracking import run_facts
from tlx.tracking.tracker import Tracker

log = logging.getLogger("tlx")


class TrackedRun:
    """A run as MLflow knows it. Nothing is written before `start`, and nothing at all with `tracking=none`."""

    def __init__(self, tracker: Tracker, key: str) -> None:
        """`key`: the run's name for good; a new one where it is empty. A sweep's job begins with the sweep's."""
        self.tracker, self.key = tracker, key or uuid.uuid4().hex
        self.choices: Mapping[str, str] = {}  # what is chosen of each group, as MLflow lists it
        self._folder: Path | None = None

    def start(self, summary: Summary, name: str, data: Data | None = None) -> None:
        """Opens the run of the summary's folder, new or again; `data`: as far as it is known."""
        folder = summary.folder
        if not folder.is_dir() or not self.tracker.uri:
            return
        known: dict[str, Any] = {"key": self.key, "name": name, "sent": False, "ended": None}
        known["began"] = run_facts.facts(folder).get("began", time.time())
        if data is not None:
            known["data"] = {"name": data.name, "digest": data.fingerprint, "source": data.source}
        if self.choices:
            known["choices"] = {name: shown(choice) for name, choice in self.choices.items()}
        if summary.source is not None:
            found = json.loads((Path(summary.source) / "summary.json").read_text(encoding="utf-8"))
            known["source"] = found["mlflow_run_id"]
        run_facts.remember(folder, **known, uri=shown(self.tracker.uri), experiment=self.tracker.experiment)
        self._folder = folder
        self.tracker.start(folder)

    def finish(self, error: str) -> None:
        """Ends the run; what MLflow could not take is remembered in the folder.

        `error`: why it has ended, where its summary could not be written.
        """
        if self._folder is None:
            return
        run_facts.remember(self._folder, ended=time.time())
        why = self.tracker.finish(error)
        run_facts.remember(self._folder, run_id=self.tracker.run_id, sent=not why, reason=why)
        if why:
            log.info("what MLflow has not got is in the folder; to send it: python -m tlx sync %s", self._folder)

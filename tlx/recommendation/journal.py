"""What a recommendation has done so far, in its folder: a line a step, written when the step is through.

It is all that decisions depend on: who is killed reads it, and decides as if nothing had happened. A line that was
being written when the process was killed is none.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tlx.core.atomic_files import atomic, unwritable
from tlx.core.errors import RequestError

__all__ = ["EVIDENCE", "Journal", "Step"]
FILE, EVIDENCE = "journal.jsonl", "evidence"  # the steps, and what they found of each image
Step = dict[str, Any]


class Journal:
    """The steps of a recommendation, by their names.

    Attributes:
        folder: of the recommendation.
        steps: name → what is known of it, with the `seconds` that it took; in the order in which they ended.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.steps = folder, dict[str, Step]()
        file = folder / FILE
        try:
            lines = file.read_text(encoding="utf-8").rpartition("\n")[0].splitlines() if file.is_file() else []
            for line in lines:
                step = json.loads(line)
                self.steps[step["step"]] = step
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RequestError(f"{file}: cannot be read; take another --name, or remove {folder}") from error

    @property
    def spent(self) -> float:
        """Seconds of all steps."""
        return sum(float(step.get("seconds", 0.0)) for step in self.steps.values())

    def found(self, name: str) -> Step | None:
        """What is known of a step; None where it was not done."""
        return self.steps.get(name)

    def add(self, name: str, seconds: float, facts: Mapping[str, Any], arrays: Mapping[str, Any] | None = None) -> Step:
        """Keeps a step that is through, and what it found of each image; a second one of the name takes its place.

        `seconds`: are added to those of the first one.
        """
        before = float(self.steps.get(name, {}).get("seconds", 0.0))
        step = {**facts, "step": name, "seconds": round(before + seconds, 3)}
        try:
            if arrays is not None:
                with atomic(self._arrays(name), "--name") as file, file.open("wb") as stream:
                    np.savez_compressed(stream, **arrays)
            path = self.folder / FILE
            text = path.read_text(encoding="utf-8") if path.is_file() else ""
            torn = "" if text.endswith("\n") or not text else "\n"  # of a process that was killed
            if torn:
                with atomic(path, "--name") as file:
                    file.write_text(text.rpartition("\n")[0] + ("\n" if "\n" in text else ""), encoding="utf-8")
            with path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(step, ensure_ascii=False) + "\n")
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            raise unwritable(self.folder / FILE, error, "--name") from error
        self.steps[name] = step
        return step

    def arrays(self, name: str) -> dict[str, Any]:
        """What a step has found of each image."""
        try:
            with np.load(self._arrays(name)) as found:
                return {key: found[key] for key in found.files}
        except (OSError, ValueError, KeyError) as error:
            raise RequestError(f"{self._arrays(name)}: cannot be read; remove {self.folder} to begin anew") from error

    def _arrays(self, name: str) -> Path:
        return self.folder / EVIDENCE / f"{name.replace('/', '_').replace(' ', '-')}.npz"

"""The run's end of what leads to the process that writes into MLflow (`tracking_process`)."""

import atexit
import json
import logging
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

log = logging.getLogger("tlx.tracking")


class Pipe:
    """The process that writes, and what it has answered."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  (lives as long as the process)
        # -P: its folder must not become a place for imports; a session of its own: Ctrl-C is for the run alone
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(Path(__file__).with_name("tracking_process.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            start_new_session=True,
        )
        self._lock = threading.Lock()
        self._answer = threading.Condition(self._lock)
        self._ids: dict[int, str] = {}
        self._finished: set[int] = set()
        self._uris: dict[int, str] = {}
        self._gone = False
        self._reader = threading.Thread(target=self._listen, name="tlx-tracking", daemon=True)
        self._reader.start()

    @property
    def usable(self) -> bool:
        """Whether it lives, and was started by this process and not by one that this was forked from."""
        return self.pid == os.getpid() and not self._gone

    def new_key(self, uri: str) -> int:
        """A number for a run that is written to `uri`."""
        with self._lock:
            key = len(self._uris)
            self._uris[key] = uri
            return key

    def say(self, message: Mapping[str, Any]) -> None:
        """Sends a message, and does not wait for what becomes of it."""
        assert self._process.stdin is not None
        with self._lock:
            if self._gone or message["run"] in self._finished:
                return
            try:
                self._process.stdin.write(json.dumps(message).encode() + b"\n")
                self._process.stdin.flush()
            except OSError:
                pass  # it has died; the listener says so

    def run_id(self, key: int) -> str:
        """MLflow's id of a run; waits until it is known; empty where it will not be."""
        with self._answer:
            self._answer.wait_for(lambda: self._gone or key in self._ids or key in self._finished)
            return self._ids.get(key, "")

    def wait_finished(self, key: int) -> None:
        """Waits until all that was said of a run is written, or the process has ended."""

        def done() -> bool:
            return self._gone or key in self._finished

        with self._answer:
            if not self._answer.wait_for(done, timeout=10):
                log.info("waiting until MLflow (%s) has everything", self._uris[key])
                self._answer.wait_for(done)

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            answer = json.loads(line)
            key = answer["run"]
            with self._answer:
                if "run_id" in answer:
                    self._ids[key] = answer["run_id"]
                if "finished" in answer:
                    self._finished.add(key)
                self._answer.notify_all()
            if "said" in answer:
                log.info("MLflow: %s", answer["said"])
            if "warning" in answer:
                log.warning("MLflow (%s) failed, the run goes on without it: %s", self._uris[key], answer["warning"])
        with self._answer:
            self._gone = True
            lost = len(self._finished) < len(self._uris)
            self._answer.notify_all()
        if lost:
            self._errors.seek(0)
            last = self._errors.read().decode(errors="replace").strip().splitlines()[-1:] or ["no word"]
            log.warning("the process that writes to MLflow has ended, the run goes on without it: %s", last[0])

    def close(self) -> None:
        """Ends the process: when everything is written it has nothing to do any more."""
        if self.pid != os.getpid():
            return
        assert self._process.stdin is not None
        with self._lock:
            self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            pass  # it ends by itself when it has written what it has
        else:
            self._reader.join(timeout=1)
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._errors.close()


_current: Pipe | None = None
_current_lock = threading.Lock()


def pipe() -> Pipe:
    """One for all runs of this process: MLflow is imported once. Another after a fork, or when it has died."""
    global _current
    with _current_lock:
        if _current is None or not _current.usable:
            _current = Pipe()
            atexit.register(_current.close)
        return _current

"""The run's end of what leads to the process that writes into MLflow (`mlflow_worker`).

Sending never waits, and no wait for an answer is without limit: a process that has ended, that does not answer, or
whose answers cannot be read costs one warning, and the run continues without it.
"""

import atexit
import contextlib
import json
import logging
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tlx.core.errors import shown

PATIENCE = 30.0  # seconds in which the process answers that it lives, whatever it does
BUSY = 600.0  # seconds that one message may take it: an upload, a server that answers slowly
log = logging.getLogger("tlx.tracking")

PACKAGE = Path(__file__).resolve().parents[1]
START = "import sys; sys.path.insert(0, sys.argv[1]); from tlx.tracking.mlflow_worker.__main__ import run; run()"


class Pipe:
    """The process that writes, and what it has answered."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._lock = threading.Lock()
        self._answer = threading.Condition(self._lock)
        self._outbox: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._ids: dict[int, str] = {}
        self._finished: dict[int, str] = {}  # why MLflow does not have all of it, "" where it has
        self._uris: dict[int, str] = {}
        self._said: dict[int, list[str]] = {}  # beside that, in words
        self._gone = ""  # why nothing can be said any more
        self._heard = time.monotonic()
        self._busy = 0.0  # seconds that the message under way has taken
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  (lives as long as the process)
        self._process: subprocess.Popen[bytes] | None = None
        self._reader = threading.Thread(target=self._listen, name="tlx-tracking", daemon=True)
        try:
            # -P: the current folder must not become a place for imports; a session of its own: Ctrl-C is for the run
            # alone; -X utf8: MLflow writes files of class names, whatever the locale is
            self._process = subprocess.Popen(
                [sys.executable, "-X", "utf8", "-P", "-c", START, str(PACKAGE.parent)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                start_new_session=True,
                cwd=PACKAGE,  # that of the run may be moved or removed while it writes
            )
        except OSError as error:
            self._end(f"it cannot be started: {error}")
            return
        self._reader.start()
        threading.Thread(target=self._send, name="tlx-tracking-out", daemon=True).start()

    @property
    def usable(self) -> bool:
        """Whether it lives, and was started by this process and not by one that this was forked from."""
        return self.pid == os.getpid() and not self._gone

    @property
    def has_worked(self) -> bool:
        """Whether it has opened a run, or belongs to a process that this one was forked from."""
        return self.pid != os.getpid() or any(self._ids.values())

    def new_key(self, uri: str) -> int:
        """A number for a run that is written to `uri`."""
        with self._lock:
            key = len(self._uris)
            self._uris[key] = uri
            return key

    def say(self, message: Mapping[str, Any]) -> None:
        """Sends a message, and does not wait for what becomes of it."""
        with self._lock:
            if not self._gone and message["run"] not in self._finished:
                self._outbox.put(json.dumps(message).encode() + b"\n")

    def run_id(self, key: int) -> str:
        """MLflow's id of a run; waits until it is known; empty where it will not be."""
        with self._answer:
            self._wait(lambda: key in self._ids or key in self._finished)
            return self._ids.get(key, "")

    def said(self, key: int) -> list[str]:
        """What it has answered of a run so far, in words."""
        with self._lock:
            return list(self._said.get(key, ()))

    def wait_finished(self, key: int) -> str:
        """Waits until all that was said of a run is written; why MLflow does not have all of it, empty where it has."""
        with self._answer:
            self._wait(lambda: key in self._finished, f"waiting until MLflow ({self._uris[key]}) has everything")
            return self._finished.get(key, self._gone)

    def _wait(self, done: Callable[[], bool], doing: str = "") -> None:
        """Until it is done, or the process has ended or does not answer; the lock is held."""
        began = self._heard = time.monotonic()
        while not done() and not self._gone:
            now = time.monotonic()
            if doing and now - began > 10:
                log.info("%s", doing)
                doing = ""
            if now - self._heard > PATIENCE or self._busy > BUSY:
                silent = self._busy if self._busy > BUSY else now - self._heard
                assert self._process is not None
                self._process.kill()
                self._end(f"it has not answered for {silent:.0f} s, and was stopped")
                return
            self._outbox.put(b'{"op": "ping"}\n')
            self._answer.wait(timeout=2)

    def _send(self) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # it has died; the listener says so
            while (line := self._outbox.get()) is not None:
                self._process.stdin.write(line)
                self._process.stdin.flush()
        with contextlib.suppress(OSError):
            self._process.stdin.close()

    def _listen(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        why = ""
        try:
            for line in self._process.stdout:
                self._take(json.loads(line))
        except Exception as error:  # whatever it is that has come
            why = f"its answer could not be read ({type(error).__name__})"
        with self._answer:
            if len(self._finished) < len(self._uris) or why:
                self._errors.seek(0)
                last = self._errors.read().decode(errors="replace").strip().splitlines()[-1:]
                self._end(why or (f"it has ended: {last[0]}" if last else "it has ended without a message (killed?)"))
            else:
                self._gone = self._gone or "it has ended"
            self._answer.notify_all()

    def _take(self, answer: Mapping[str, Any]) -> None:
        with self._answer:
            self._heard = time.monotonic()
            self._busy = float(answer.get("busy", 0.0))
            if "busy" in answer:
                return
            if "broken" in answer:
                self._end(str(answer["broken"]))
            else:
                key = answer["run"]
                if "run_id" in answer:
                    self._ids[key] = answer["run_id"]
                if "said" in answer:
                    self._said.setdefault(key, []).append(shown(answer["said"]))
                if "finished" in answer and not self._gone:
                    self._finished[key] = shown(answer["finished"])
            self._answer.notify_all()
        if "said" in answer:
            log.info("MLflow: %s", shown(answer["said"]))
        if "warning" in answer:
            log.warning(
                "MLflow (%s) failed, the run continues without it: %s", self._uris[key], shown(answer["warning"])
            )
        if "refused" in answer:
            log.warning("MLflow (%s) %s", self._uris[key], shown(answer["refused"]))

    def _end(self, why: str) -> None:
        """Says once that nothing more is written."""
        if not self._gone:
            self._gone = f"the process that writes to MLflow: {shown(why)}"
            log.warning("%s", self._gone)

    def close(self) -> None:
        """Ends the process: when everything is written it has nothing to do any more."""
        if self.pid != os.getpid() or self._process is None:
            return
        self._outbox.put(None)
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

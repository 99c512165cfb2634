"""The process that writes into MLflow: it takes messages, one JSON object a line, on stdin, and answers on stdout.

A process of its own because importing MLflow and creating its database are seconds of Python under the interpreter's
lock (measured: they double the time that importing torch takes beside them), because imports that run in two threads at
once can deadlock, and because it outlives the run: one that is killed is closed here, and not left RUNNING. It
imports nothing of tlx but `core`; MLflow is imported when the first run is opened.

It ends when its input ends, and at the first message that it cannot read: the runs that are open are closed then, so
that none stays RUNNING and no lock is held.
"""

import contextlib
import json
import os
import queue
import sys
import threading
import time
from typing import Any

from tlx.core.own_process import begin
from tlx.tracking.mlflow_worker import model_registry
from tlx.tracking.mlflow_worker.mlflow_store import MlflowStore
from tlx.tracking.mlflow_worker.moved_store import follow
from tlx.tracking.mlflow_worker.run_lock import Left
from tlx.tracking.mlflow_worker.run_removal import removed
from tlx.tracking.mlflow_worker.run_writer import Recorded
from tlx.tracking.mlflow_worker.system_load import Load

Message = dict[str, Any]
LINGER = 0.2  # seconds for which what has changed waits for more: an epoch may take less than the writing of one
IDLE = 0.5  # seconds between two looks at what is due
ORPHANED = "the process ended without closing the run: it was killed, or the machine ran out of memory"
# What each message holds beside `op` and `run`; `open` also has `artifacts`, `login` and `register`, or null,
# and `remove` the first two.
SHAPES: dict[str, dict[str, type]] = {
    "open": {
        **dict.fromkeys(("folder", "uri", "experiment"), str),
        "source": dict,
        **dict.fromkeys(("model", "shared", "system_metrics"), bool),
        "time": int,
    },
    "changed": {},
    "finish": {"error": str},
    "remove": {"uri": str, "experiment": str, "runs": list, "models": list, "forced": bool},
}


def understood(line: bytes) -> Message:
    """The message of a line.

    Raises:
        ValueError: it is none.
    """
    message = json.loads(line)
    if not isinstance(message, dict):
        raise ValueError("no JSON object")
    if message.get("op") == "ping":
        return message
    shape = SHAPES.get(str(message.get("op")))
    if shape is None:
        raise ValueError("no known operation")
    for name, kind in {"run": int, **shape}.items():
        if not isinstance(message.get(name), kind):
            raise ValueError(f"{message['op']} without {name}")
    return message


class Process:
    """Messages in, answers out, and the runs that are open."""

    def __init__(self) -> None:
        self.output = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
        os.dup2(2, 1)  # what a library prints must not be taken for an answer
        for stream in (sys.stdout, sys.stderr):  # MLflow prints pictograms, and PYTHONIOENCODING may know none
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")  # type: ignore[union-attr]

        self.messages: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self.stores: dict[str, MlflowStore] = {}
        self.runs: dict[int, Recorded] = {}
        self.changed: dict[int, float] = {}  # runs with something new in their folders, and since when
        self.ended = threading.Event()  # nothing more will be requested
        self.since: float | None = None  # when the message under way was taken up

    def say(self, message: Message) -> None:
        """Answers."""
        with contextlib.suppress(OSError):  # nobody listens any more, and what is left is written all the same
            self.output.write(json.dumps(message) + "\n")

    def broken(self, error: Exception) -> None:
        """Nothing that comes can be relied on any more."""
        self.say({"broken": f"a message could not be read ({type(error).__name__}: {' '.join(str(error).split())})"})

    def read(self) -> None:
        """In a thread of its own, so that the one who asks never waits; until the input ends, whatever is in it."""
        requested = False
        try:
            for line in sys.stdin.buffer:
                if not line.endswith(b"\n"):  # who asks was killed while writing it
                    break
                message = understood(line)
                if message["op"] == "ping":
                    since = self.since
                    self.say({"busy": 0.0 if since is None else time.monotonic() - since})
                    continue
                self.messages.put(message)
                requested = True
        except Exception as error:
            self.broken(error)
        if not requested:
            os._exit(0)  # nothing to write: do not finish an import first, somebody waits for us to end
        self.ended.set()
        self.messages.put({"op": "end"})

    def take(self, message: Message) -> None:
        """Does what a message says."""
        key = message["run"]
        if message["op"] == "open":
            store = self.store(message)
            self.runs[key] = Recorded(message, store, model_registry, Load, self.say, self.ended.is_set)
            self.write(key)
        elif message["op"] == "remove":
            self.say({"run": key, "finished": removed(self.store(message), message)})
        elif key in self.runs and message["op"] == "changed":
            self.changed.setdefault(key, time.monotonic())
        elif key in self.runs:
            self.write(key, message["error"])
            if key in self.runs:
                run = self.runs.pop(key)
                run.lock.leave()
                self.say({"run": key, "finished": run.left})

    def store(self, message: Message) -> MlflowStore:
        """The store that a message names, opened once."""
        login = message.get("login")
        known = json.dumps([message["uri"], login])
        if known not in self.stores:
            self.stores[known] = MlflowStore(message["uri"], message.get("artifacts"), login, follow)
        return self.stores[known]

    def write(self, key: int, end: str | None = None) -> None:
        """Writes what MLflow has not got of a run; `end`: it has ended, for this reason if for no other."""
        self.changed.pop(key, None)
        run = self.runs[key]
        try:
            run.write(end)
        except Left:
            self.runs.pop(key).lock.leave()
        else:
            if run.failed and end is None:  # again, when the store may work again
                self.changed[key] = time.monotonic()

    def serve(self) -> None:
        """Writes until nothing more will be requested."""
        while True:
            try:
                message = self.messages.get(timeout=LINGER if self.changed else IDLE)
            except queue.Empty:
                message = {"op": "idle"}
            if message["op"] == "end":
                return
            self.since = time.monotonic()
            if message["op"] != "idle":
                self.take(message)
            for key, since in list(self.changed.items()):
                if time.monotonic() - since >= LINGER:
                    self.write(key)
            for run in list(self.runs.values()):
                run.sample()
            self.since = None

    def close(self) -> None:
        """Closes the runs that are open."""
        for key in list(self.runs):
            with contextlib.suppress(Exception):
                self.take({"op": "finish", "run": key, "error": ORPHANED})


def main() -> None:
    """Until the input ends, which is when the process that asks has ended, however that was."""
    for name, value in {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # what fails is tried again later
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
        "MLFLOW_LOGGING_LEVEL": "WARNING",
    }.items():
        os.environ.setdefault(name, value)
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID", "MLFLOW_RUN_ID"):
        os.environ.pop(name, None)  # where to write is said with each run
    process = Process()
    threading.Thread(target=process.read, daemon=True).start()
    with contextlib.suppress(ImportError):  # while the run prepares; what is missing is said when it is needed
        import mlflow  # noqa: F401
    try:
        process.serve()
    except Exception as error:
        process.broken(error)
    process.ended.set()
    process.close()


def run() -> None:
    """The process, from its start to its end."""
    begin()
    main()
    sys.stderr.flush()
    os._exit(0)  # no thread of a library that waits for a server can keep it alive

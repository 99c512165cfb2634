"""The process that writes into MLflow: it takes messages, one JSON object a line, on stdin, and answers on stdout.

A process of its own because importing MLflow and creating its database are seconds of Python under the interpreter's
lock (measured: they double the time that importing torch takes beside them), because imports that run in two threads at
once can deadlock, and because it outlives the run: one that is killed is closed here, and not left RUNNING. It is
started by path and imports nothing of tlx; MLflow is imported when the first run is opened.
"""

import contextlib
import importlib.util
import json
import os
import queue
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

Message = dict[str, Any]
LINGER = 0.2  # seconds for which metrics wait for more of them
ORPHANED = "the process ended without closing the run: it was killed, or the machine ran out of memory"


def _neighbour(name: str) -> Any:
    """A module beside this one, opened by path too: nothing else here is to be found by name."""
    spec = importlib.util.spec_from_file_location(f"tlx_{name}", Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if TYPE_CHECKING:
    from tlx import registry
    from tlx.tracking_run import Left, Recorded
    from tlx.tracking_store import Store
else:
    registry, _run = _neighbour("registry"), _neighbour("tracking_run")
    Left, Recorded, Store = _run.Left, _run.Recorded, _neighbour("tracking_store").Store


def gathered(first: Message, messages: "queue.SimpleQueue[Message]") -> tuple[Message, list[Message]]:
    """The metrics of `first` and of those like it that come within `LINGER`, as one message; and what came after them.

    The epochs of a small tail take less than the writing of one.
    """
    alike, until = [first], time.monotonic() + LINGER
    after: list[Message] = []
    with contextlib.suppress(queue.Empty):
        while not after:
            message = messages.get(timeout=max(0.0, until - time.monotonic()))
            same = (message["op"], message.get("run")) == ("metrics", first["run"])
            (alike if same else after).append(message)
    rows = [(message["values"], message["step"], message["time"]) for message in alike]
    return {"op": "metrics", "run": first["run"], "rows": rows}, after


def main() -> None:
    """Reads until the input ends, which is when the process that asks has ended, however that was."""
    output = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)  # what a library prints must not be taken for an answer
    for name, value in {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # what fails is kept here and tried again later
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
        "MLFLOW_LOGGING_LEVEL": "WARNING",
    }.items():
        os.environ.setdefault(name, value)
    messages: queue.SimpleQueue[Message] = queue.SimpleQueue()
    stores: dict[str, Store] = {}
    runs: dict[int, Recorded] = {}
    ids: dict[int, str] = {}
    ended = threading.Event()

    def read() -> None:
        asked = False
        for line in sys.stdin.buffer:
            messages.put(json.loads(line))
            asked = True
        if not asked:
            os._exit(0)  # nothing to write: do not finish an import first, somebody waits for us to end
        ended.set()
        messages.put({"op": "end"})

    def say(message: Message) -> None:
        with contextlib.suppress(OSError):  # nobody listens any more, and what is left is written all the same
            output.write(json.dumps(message) + "\n")

    def take(message: Message) -> None:
        key = message["run"]
        if message["op"] == "start":
            store = stores.setdefault(message["uri"], Store(message["uri"], message["artifacts"]))
            runs[key] = Recorded(key, store, registry, say, ids, ended.is_set)
        if key in runs:
            try:
                runs[key].take(message)
            except Left:
                runs.pop(key).leave()
                return
            if message["op"] == "finish":
                runs.pop(key).leave()
                say({"run": key, "finished": True})

    threading.Thread(target=read, daemon=True).start()  # so that the one who asks never waits
    with contextlib.suppress(ImportError):  # while the run prepares; what is missing is told when it is needed
        import mlflow  # noqa: F401
    ahead: list[Message] = []
    while True:
        try:
            message = ahead.pop() if ahead else messages.get(timeout=0.5)
        except queue.Empty:
            for run in list(runs.values()):
                run.sample()
            continue
        if message["op"] == "end":
            break
        if message["op"] == "metrics":
            message, ahead = gathered(message, messages)
        take(message)
        for run in list(runs.values()):
            run.sample()
    for key in list(runs):
        take({"op": "finish", "run": key, "status": "KILLED", "error": ORPHANED, "time": int(time.time() * 1000)})


if __name__ == "__main__":
    main()

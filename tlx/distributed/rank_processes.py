"""The ranks of a run that are started on this machine: their processes begin, are watched, and end with the first one.

A rank that is started is a process of its own with the same configuration; it lives no longer than the first one, which
is the process that was started for the run: when that ends, even by `kill -9`, the pipe between them breaks.
"""

import contextlib
import json
import os
import pkgutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any

from tlx.core.errors import said
from tlx.core.interruption import ENDING
from tlx.distributed import process_group

LOST_ANOTHER = 3  # the exit code of a rank that could not go on without another
# -P: the folder it runs in is no place for imports before the path is that of the first rank
_CHILD = (
    "import json, sys; given = json.loads(sys.stdin.readline()); sys.path[:] = given['path']; "
    "from tlx.distributed.rank_processes import serve; serve(given)"
)


@dataclass
class _Child:
    rank: int
    process: "subprocess.Popen[bytes]"
    errors: IO[bytes]


def serve(given: Mapping[str, Any]) -> None:
    """What a process does that was started to be a rank."""
    for number in (signal.SIGINT, *ENDING):
        signal.signal(number, signal.SIG_IGN)  # they are for the first rank, which ends the others
    for stream in (sys.stdout, sys.stderr):  # a file that the first rank reads
        stream.reconfigure(encoding="utf-8", errors="backslashreplace")  # type: ignore[union-attr]
    threading.Thread(target=_until_the_first_ends, daemon=True).start()
    try:
        from torch.distributed import TCPStore  # type: ignore[attr-defined]

        group = process_group.Group(**given["group"], started=True)
        group.store = TCPStore("127.0.0.1", given["port"], group.size, False, process_group.LONG)
        with process_group.of(group):
            pkgutil.resolve_name(given["target"])(**given["arguments"])
    except BaseException as error:
        traceback.print_exception(error)
        print(said(error), file=sys.stderr, flush=True)
        os._exit(LOST_ANOTHER if isinstance(error, process_group.LostRank) else 1)


@contextlib.contextmanager
def started(size: int, device: str, target: str, arguments: Mapping[str, Any]) -> Iterator[list[_Child]]:
    """This process is the first of so many ranks while the block lasts; the others are ended with it."""
    children: list[_Child] = []
    well = False
    # This machine alone can connect.
    with socket.create_server(("127.0.0.1", 0), backlog=size) as listener:
        try:
            for number in range(1, size):
                whole = {
                    "path": sys.path,
                    "port": listener.getsockname()[1],
                    "group": {"rank": number, "size": size, "local": number, "beside": size, "device": device},
                    "target": target,
                    "arguments": arguments,
                }
                children.append(_child(number, json.dumps(whole)))
            from torch.distributed import TCPStore  # type: ignore[attr-defined]

            port, descriptor = listener.getsockname()[1], listener.detach()
            store = TCPStore(
                "127.0.0.1", port, size, True, process_group.LONG, wait_for_workers=False, master_listen_fd=descriptor
            )
            group = process_group.Group(0, size, 0, size, device, True, store, lambda: _check(children))
            over = threading.Event()
            if device == "cuda":
                threading.Thread(target=_watch, args=(children, over), name="tlx-ranks", daemon=True).start()
            with process_group.of(group):
                try:
                    yield children
                finally:
                    over.set()
            well = True
        finally:
            if not well:  # all at once: ending one takes a while, and a second Ctrl-C ends the waiting
                for child in children:
                    _kill(child)
            for child in children:
                _end(child)


def _child(number: int, given: str) -> _Child:
    errors = tempfile.TemporaryFile()  # noqa: SIM115  (lives as long as the process)
    with process_group.loopback():
        # A session of its own: Ctrl-C is for the first rank, and what this one starts is ended with it.
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", _CHILD],
            stdin=subprocess.PIPE,
            stdout=errors,
            stderr=errors,
            start_new_session=True,
        )
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # it has died already, which will be noticed
        process.stdin.write(given.encode() + b"\n")
        process.stdin.flush()
    return _Child(number, process, errors)


def _kill(child: _Child) -> None:
    if child.process.poll() is None:
        os.killpg(child.process.pid, signal.SIGKILL)


def _end(child: _Child) -> None:
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.process.wait(10)
    _kill(child)
    child.process.wait()
    assert child.process.stdin is not None
    with contextlib.suppress(OSError):
        child.process.stdin.close()
    child.errors.close()


def _check(children: list[_Child]) -> None:
    if any(child.process.poll() for child in children):
        raise process_group.LostRank("another rank has ended")


def _watch(children: list[_Child], over: threading.Event) -> None:
    """NCCL waits for ever for a rank that is dead: its waiting is ended, so that `_check` is reached."""
    from torch.distributed import distributed_c10d

    while not over.wait(0.5):
        if any(child.process.poll() for child in children):
            distributed_c10d._abort_process_group()
            return


def why(children: list[_Child], error: process_group.LostRank) -> str:
    """Which rank is no more, and why; those that ended for want of it are not to blame."""
    until = time.monotonic() + 5  # a connection breaks before the system says that the process is dead
    while time.monotonic() < until and all(child.process.poll() in (None, 0, LOST_ANOTHER) for child in children):
        time.sleep(0.02)
    ended = [child for child in children if child.process.returncode]
    if not ended:
        return str(error)
    child = min(ended, key=lambda one: (one.process.returncode == LOST_ANOTHER, one.process.returncode))
    name, code = f"rank {child.rank} of {len(children) + 1}", child.process.returncode
    if code < 0:
        return f"{name} died (signal {-code}{', as when memory runs out' if code == -signal.SIGKILL else ''})"
    child.errors.seek(0)
    text = child.errors.read().decode(errors="replace").strip()
    if os.environ.get("HYDRA_FULL_ERROR") == "1":
        print(text, file=sys.stderr)
    return f"{name} failed: {(text.splitlines() or ['without a word'])[-1]}"


def _until_the_first_ends() -> None:
    while os.read(0, 1):
        pass
    os.killpg(0, signal.SIGKILL)

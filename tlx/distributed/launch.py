"""How the ranks of a run begin and end: started here, on this machine, or found where torchrun or srun started them.

A rank that is started is a process of its own with the same configuration; it lives no longer than the first one, which
is the process that was asked for the run: when that ends, even by `kill -9`, the pipe between them breaks.
"""

import contextlib
import json
import os
import pkgutil
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from tlx.core.device import device_of
from tlx.core.errors import RequestError, said
from tlx.distributed import process_group

if TYPE_CHECKING:
    from tlx.config.schema import Runtime

LOST_ANOTHER = 3  # the exit code of a rank that could not go on without another
# -P: the folder it runs in is no place for imports before the path is that of the first rank
_CHILD = (
    "import json, sys; given = json.loads(sys.stdin.readline()); sys.path[:] = given['path']; "
    "from tlx.distributed.launch import serve; serve(given)"
)


class Died(Exception):
    """A rank is no more, and the run cannot go on without it."""


class Found(NamedTuple):
    """The rank that torchrun or srun (`by`) gave this process."""

    by: str
    rank: int
    size: int


@dataclass
class _Child:
    rank: int
    process: "subprocess.Popen[bytes]"
    errors: IO[bytes]


@contextlib.contextmanager
def together(
    runtime: "Runtime",
    target: str,
    arguments: Mapping[str, Any],
    advice: Callable[[], str] = lambda: "start it again",
) -> Iterator[None]:
    """The block is carried out by as many ranks as `runtime.devices` asks for, or as torchrun or srun has started.

    Within a run that has its ranks already, the block is theirs.

    Args:
        target: `module:function` that the ranks beside the first call with `arguments` (JSON), to get to this block.
        advice: what to do when a rank has died.

    Raises:
        RequestError: this machine has not so many devices.
        Died: a rank has ended before its time; so have the others.
    """
    there = found()
    number = 1 if process_group.count() > 1 else wanted(runtime, there)
    if number == 1:
        yield
    elif there is not None:
        with process_group.of(_joined(runtime, there)):
            try:
                yield
            except process_group.Lost as error:
                raise Died(f"{error}, this is rank {there.rank} of {there.size}; {advice()}") from error
    else:
        with _started(number, device_of(runtime.device).type, target, arguments) as children:
            try:
                yield
            except process_group.Lost as error:
                raise Died(f"{_why(children, error)}; {advice()}") from error


def wanted(runtime: "Runtime", there: Found | None = None) -> int:
    """How many ranks there shall be: those that are `there`, or what `runtime.devices` asks for.

    auto is a rank for each GPU, and one where there is none. On the CPU a rank needs a core, but two are always
    allowed.

    Raises:
        RequestError: this machine has not so many devices or cores, or other ranks are there.
    """
    asked = runtime.devices
    if there is not None:
        if asked not in ("1", "auto", str(there.size)):
            raise RequestError(
                f"runtime.devices={asked}: {there.by} has started {there.size} ranks; leave one of them out"
            )
        return there.size
    if asked == "1":
        return 1
    import torch

    device = device_of(runtime.device)
    if device.type == "cpu":
        number, cores = 1 if asked == "auto" else int(asked), _cores()
        if number > (most := max(2, cores)):
            what = f"this machine has {cores} core{'s' if cores > 1 else ''}"
            raise RequestError(f"runtime.devices={asked}: {what}; take runtime.devices={most}, or auto")
        return number
    one = device.index is not None or device.type != "cuda"
    most = 1 if one else torch.cuda.device_count()
    number = most if asked == "auto" else int(asked)
    if number > most:
        what = f"{device} is one device" if one else f"this machine has {most} GPU{'s' if most > 1 else ''}"
        raise RequestError(f"runtime.devices={asked}: {what}; take runtime.devices={most}, or auto")
    return number


def _cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def found() -> Found | None:
    """What torchrun or srun says of this process, where they have started several."""
    there = os.environ
    if "RANK" in there and int(there.get("WORLD_SIZE", 1)) > 1:
        return Found("torchrun", int(there["RANK"]), int(there["WORLD_SIZE"]))
    # Of a step that srun started: in the script of a batch job SLURM_NTASKS counts tasks that nobody has started.
    if "SLURM_PROCID" in there and int(there.get("SLURM_STEP_NUM_TASKS", 1)) > 1:
        return Found("srun", int(there["SLURM_PROCID"]), int(there["SLURM_STEP_NUM_TASKS"]))
    return None


def writes() -> bool:
    """Whether this process is the one that writes files, tells MLflow and prints; known before its ranks have met."""
    there = found()
    return process_group.rank() == 0 if there is None or process_group.count() > 1 else there.rank == 0


def once(what: str) -> None:
    """Refuses `what` where torchrun or srun has started ranks, each of which would do all of it.

    Raises:
        RequestError: they have.
    """
    if (there := found()) is not None:
        raise RequestError(
            f"{what}: {there.by} has started {there.size} processes, and each would do all of it; start one, with "
            f"runtime.devices={there.size}: each run then starts ranks of its own"
        )


def serve(given: Mapping[str, Any]) -> None:
    """What a process does that was started to be a rank."""
    for number in (signal.SIGINT, signal.SIGTERM):
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
        os._exit(LOST_ANOTHER if isinstance(error, process_group.Lost) else 1)


@contextlib.contextmanager
def _started(size: int, device: str, target: str, arguments: Mapping[str, Any]) -> Iterator[list[_Child]]:
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
        raise process_group.Lost("another rank has ended")


def _watch(children: list[_Child], over: threading.Event) -> None:
    """NCCL waits for ever for a rank that is dead: its waiting is ended, so that `_check` is reached."""
    from torch.distributed import distributed_c10d

    while not over.wait(0.5):
        if any(child.process.poll() for child in children):
            distributed_c10d._abort_process_group()
            return


def _why(children: list[_Child], error: process_group.Lost) -> str:
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


def _joined(runtime: "Runtime", there: Found) -> process_group.Group:
    """The ranks that torchrun or srun has started, as they find each other."""
    from torch.distributed.rendezvous import rendezvous

    environment, address = os.environ, "env://"
    local, beside = int(environment.get("LOCAL_RANK", there.rank)), int(environment.get("LOCAL_WORLD_SIZE", there.size))
    if there.by == "srun":
        local = int(environment.get("SLURM_LOCALID", there.rank))
        tasks = re.match(r"\d+", environment.get("SLURM_STEP_TASKS_PER_NODE", str(there.size)))
        # The first of `node[01-04,07],other`.
        node = re.match(r"([^,\[]+)(?:\[([^\],-]+))?", environment.get("SLURM_STEP_NODELIST", "127.0.0.1"))
        assert tasks is not None
        assert node is not None
        beside, host = int(tasks[0]), environment.get("MASTER_ADDR", node[1] + (node[2] or ""))
        step = int(environment.get("SLURM_JOB_ID", 0)) + 97 * int(environment.get("SLURM_STEP_ID", 0))
        address = f"tcp://{host}:{environment.get('MASTER_PORT', 20000 + step % 20000)}"
    store = next(iter(rendezvous(address, there.rank, there.size, timeout=process_group.LONG)))[0]
    return process_group.Group(there.rank, there.size, local, beside, device_of(runtime.device).type, False, store)


def _until_the_first_ends() -> None:
    while os.read(0, 1):
        pass
    os.killpg(0, signal.SIGKILL)

"""How many ranks a run has, and where they come from: started on this machine, or by torchrun or srun."""

import contextlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from tlx.core.device import device_of
from tlx.core.errors import RequestError
from tlx.distributed import process_group, rank_processes

if TYPE_CHECKING:
    from tlx.config.schema import Runtime


class Died(Exception):
    """A rank is no more, and the run cannot go on without it."""


class AssignedRank(NamedTuple):
    """The rank that torchrun or srun (`by`) gave this process."""

    by: str
    rank: int
    size: int


@contextlib.contextmanager
def together(
    runtime: "Runtime",
    target: str,
    arguments: Mapping[str, Any],
    advice: Callable[[], str] = lambda: "start it again",
) -> Iterator[None]:
    """As many ranks run the block as `runtime.devices` requests, or as torchrun or srun has started.

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
            except process_group.LostRank as error:
                raise Died(f"{error}, this is rank {there.rank} of {there.size}; {advice()}") from error
    else:
        with rank_processes.started(number, device_of(runtime.device).type, target, arguments) as children:
            try:
                yield
            except process_group.LostRank as error:
                raise Died(f"{rank_processes.why(children, error)}; {advice()}") from error


def wanted(runtime: "Runtime", there: AssignedRank | None = None) -> int:
    """How many ranks there shall be: those that are `there`, or what `runtime.devices` requests.

    auto is a rank for each GPU, and one where there is none. On the CPU a rank needs a core, but two are always
    allowed.

    Raises:
        RequestError: this machine has not so many devices or cores, or other ranks are there.
    """
    requested = runtime.devices
    if there is not None:
        if requested not in ("1", "auto", str(there.size)):
            raise RequestError(
                f"runtime.devices={requested}: {there.by} has started {there.size} ranks; leave one of them out"
            )
        return there.size
    if requested == "1":
        return 1
    import torch

    device = device_of(runtime.device)
    if device.type == "cpu":
        number, cores = 1 if requested == "auto" else int(requested), _cores()
        if number > (most := max(2, cores)):
            what = f"this machine has {cores} core{'s' if cores > 1 else ''}"
            raise RequestError(f"runtime.devices={requested}: {what}; take runtime.devices={most}, or auto")
        return number
    one = device.index is not None or device.type != "cuda"
    most = 1 if one else torch.cuda.device_count()
    number = most if requested == "auto" else int(requested)
    if number > most:
        what = f"{device} is one device" if one else f"this machine has {most} GPU{'s' if most > 1 else ''}"
        raise RequestError(f"runtime.devices={requested}: {what}; take runtime.devices={most}, or auto")
    return number


def _cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def found() -> AssignedRank | None:
    """What torchrun or srun says of this process, where they have started several."""
    there = os.environ
    if "RANK" in there and int(there.get("WORLD_SIZE", 1)) > 1:
        return AssignedRank("torchrun", int(there["RANK"]), int(there["WORLD_SIZE"]))
    # Of a step that srun started: in the script of a batch job SLURM_NTASKS counts tasks that nobody has started.
    if "SLURM_PROCID" in there and int(there.get("SLURM_STEP_NUM_TASKS", 1)) > 1:
        return AssignedRank("srun", int(there["SLURM_PROCID"]), int(there["SLURM_STEP_NUM_TASKS"]))
    return None


def writes() -> bool:
    """Whether this process is the one that writes files, logs to MLflow and prints; known before its ranks have met."""
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


def _joined(runtime: "Runtime", there: AssignedRank) -> process_group.Group:
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

"""The machine: device, number format, threads, memory, random draws; and files that are whole or absent."""

import collections
import functools
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from tlx.core.errors import RequestError

if TYPE_CHECKING:
    import torch
    from torch import nn


def device_of(name: str) -> "torch.device":
    """The device for `runtime.device`: auto takes CUDA, then MPS, then the CPU.

    Raises:
        RequestError: this machine has no such device.
    """
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    device = torch.device(name)
    count = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}.get(device.type, 1)
    if (device.index or 0) >= count:
        raise RequestError(f"runtime.device={name}: this machine has {count or 'no'} such device(s); take auto or cpu")
    return device


def device_name(device: "torch.device") -> str:
    """What the summary calls a device: `cpu`, `mps`, or a GPU's own name."""
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def precision_of(name: str, device: "torch.device") -> str:
    """`fp32` or `bf16` for `runtime.precision`: auto takes bf16 where the device has matrix units for it.

    Never fp16: it needs a loss scale on a GPU and is emulated on a CPU.
    """
    import torch

    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if device.type == "cpu" and bf16_units() == "matrix" else "fp32"


# What to say where nothing computes bf16.
EMULATED = "this processor has no units for bf16, which takes several times as long as fp32 on it"
# Of torch's names for what a processor can do: x86, then ARM.
_DOT_PRODUCTS = ("avx512_bf16", "bf16", "sve_bf16")


def bf16_units() -> str:
    """What this processor computes bf16 with: `matrix` units (AMX), `vector` units, or "" where it has neither.

    Without units bf16 is emulated, many times slower than fp32. It is what oneDNN may use: `ONEDNN_MAX_CPU_ISA` counts.
    """
    import torch

    takes = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)  # not built in everywhere
    if takes is None or not takes():
        return ""
    units = cpu_capabilities()
    if units.get("amx_bf16", False):
        return "matrix"
    return "vector" if any(units.get(name, False) for name in _DOT_PRODUCTS) else ""


def cpu_capabilities() -> dict[str, bool]:
    """What the processor's vector and matrix units can do, by torch's names; older ones say it of x86 alone."""
    import torch

    if hasattr(torch.cpu, "get_capabilities"):
        return {name: value for name, value in torch.cpu.get_capabilities().items() if isinstance(value, bool)}
    return {
        "avx2": torch.cpu._is_avx2_supported(),
        "avx512_f": torch.cpu._is_avx512_supported(),
        "avx512_bf16": torch.cpu._is_avx512_bf16_supported(),
        "amx_bf16": torch.cpu._is_amx_tile_supported(),
    }


def emulated(precision: str, device: "torch.device") -> bool:
    """Whether computing in `precision` is slower on `device` than fp32, because nothing there is made for it."""
    return precision == "bf16" and device.type == "cpu" and not bf16_units()


def autocast(device: "torch.device", precision: str) -> "torch.autocast":
    """The context in which a forward pass computes in `precision`."""
    import torch

    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


Batch = TypeVar("Batch")


def paced(batches: Iterable[Batch], device: "torch.device", most: int = 8) -> Iterator[Batch]:
    """The same, but a GPU has at most so many of them to do: each holds memory that is pinned until it is fetched."""
    import torch

    under_way = collections.deque[torch.cuda.Event]()
    for batch in batches:
        yield batch
        if device.type == "cuda":
            under_way.append(torch.cuda.current_stream(device).record_event())
            if len(under_way) > most:
                under_way.popleft().synchronize()


def pinned(x: "torch.Tensor", device: "torch.device") -> "torch.Tensor":
    """`x` where a GPU can fetch it from; another device takes it as it is."""
    return x.pin_memory() if device.type == "cuda" and x.device.type == "cpu" else x


def sent(x: "torch.Tensor", device: "torch.device") -> "torch.Tensor":
    """`x` on the device. A GPU gets it while it computes; from other memory it would first finish all it was given."""
    return pinned(x, device).to(device, non_blocking=device.type == "cuda")


def training_precision(tail: "nn.Module", device: "torch.device", precision: str) -> str:
    """The format in which `tail` trains: on a CPU, small matrix products lose more to the casts than they gain."""
    from torch import nn

    wide = any(isinstance(m, nn.Conv2d | nn.MultiheadAttention | nn.LayerNorm) for m in tail.modules())
    return precision if device.type != "cpu" or wide else "fp32"


def use_threads(threads: str) -> None:
    """Sets the number of threads a CPU operation may use; auto is what torch began with, also after another job."""
    import torch

    began_with = _threads()
    torch.set_num_threads(began_with if threads == "auto" else int(threads))


@functools.cache
def _threads() -> int:
    import torch

    return torch.get_num_threads()


def use_precision(precision: str) -> None:
    """Lets a GPU round the inputs of fp32 convolutions to TF32 only where that is not called fp32."""
    import torch

    torch.backends.cudnn.allow_tf32 = precision != "fp32"


def reader_processes(workers: str, device: "torch.device") -> int:
    """How many processes read images: none beside a CPU that computes, up to 8 beside a GPU."""
    if workers != "auto":
        return int(workers)
    shared = Path("/dev/shm")  # where they hand over what they read; a container may have 64 MB of it
    if shared.is_dir() and shutil.disk_usage(shared).free < 2**30:
        return 0
    return min(8, max((os.cpu_count() or 1) - 1, 0)) if device.type == "cuda" else 0


def free_memory() -> int:
    """Bytes that this process may still take: of the machine, and of the container where there is one."""
    free = _available()
    group = Path("/sys/fs/cgroup")
    try:
        limit = int((group / "memory.max").read_text())
        lines = (group / "memory.stat").read_text().splitlines()
        cached = int(dict(line.split() for line in lines)["inactive_file"])  # files read before: given back when needed
        return min(free, limit - int((group / "memory.current").read_text()) + cached)
    except (OSError, ValueError, KeyError):  # no control group, or its limit is "max"
        return free


def _available() -> int:
    """Bytes of memory that the system has to give."""
    import psutil

    return int(psutil.virtual_memory().available)


def free_bytes(device: "torch.device") -> int:
    """Bytes that this process may still take on `device`."""
    import torch

    if device.type != "cuda":
        return free_memory()
    # What torch has taken and can use again is free, too.
    own = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0]) + own


def import_from_here() -> None:
    """Lets YAML name modules in the current folder: `python -m tlx` does, and an installed script would not.

    Where Python was set to look in no such folder (`-P`, PYTHONSAFEPATH), it is left so.
    """
    here = os.getcwd()
    if not sys.flags.safe_path and here not in (os.path.abspath(place) for place in sys.path):
        sys.path.insert(0, here)

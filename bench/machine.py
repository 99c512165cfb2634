"""What the figures were measured on, as one JSON line: processor, GPU, versions, peak rates, FLOPs of the networks.

A process of its own: what measures others must stay small, since a child's peak memory counts from its parent's.
"""

import importlib.metadata
import importlib.util
import json
import os
import platform
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode
from torchvision import models

from tlx.core.device import bf16_units, precision_of

PACKAGES = ("torch", "torchvision", "timm", "mlflow", "lightning", "fastai", "numpy", "pillow")


def peak(where: torch.device, dtype: torch.dtype, repeats: int = 5) -> float:
    """FLOP/s of a large matrix product, the median of several."""
    n = 4096 if where.type == "cpu" else 8192
    a, b = (torch.randn(n, n, device=where).to(dtype) for _ in range(2))
    times = []
    for _ in range(repeats + 1):  # the first is not counted
        began = time.perf_counter()
        product = a @ b
        float(product[0, 0])  # waits for the device
        times.append(time.perf_counter() - began)
    return 2 * n**3 / statistics.median(times[1:])


def formats(where: torch.device) -> dict[str, torch.dtype]:
    """The number formats that the machine has units for: in another one a product takes minutes, for no use."""
    units = torch.cuda.is_bf16_supported(including_emulation=False) if where.type == "cuda" else bool(bf16_units())
    return {"fp32": torch.float32, **({"bf16": torch.bfloat16} if units else {})}


def flops(arch: str) -> dict[str, int]:
    """FLOPs of one image's forward pass at 224 pixels: in all (""), and of each child module by name."""
    net = models.get_model(arch, weights=None).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net(torch.zeros(1, 3, 224, 224))
    counts = {name: sum(ops.values()) for name, ops in counter.get_flop_counts().items()}
    kind = type(net).__name__
    return {
        "": counter.get_total_flops(),
        **{name: counts.get(f"{kind}.{name}", 0) for name, _ in net.named_children()},
    }


def processor() -> str:
    """The processor's name."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Versions of what is installed; what is not is left out."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        if importlib.util.find_spec({"pillow": "PIL"}.get(name, name)) is not None:
            found[name] = importlib.metadata.version(name)
    return found


def facts(archs: list[str]) -> dict[str, Any]:
    """All of it."""
    where = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return {
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "amx_bf16": bf16_units() == "matrix",
        "gpu": torch.cuda.get_device_name() if where.type == "cuda" else None,
        "bf16": precision_of("auto", where) == "bf16",  # what tlx computes in
        "system": platform.platform(),
        "versions": versions(),
        "peak": {name: peak(where, dtype) for name, dtype in formats(where).items()},
        "flops": {arch: flops(arch) for arch in archs},
    }


if __name__ == "__main__":
    print(json.dumps(facts(sys.argv[1:])))

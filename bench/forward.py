"""python -m bench.forward: the graph of the frozen part against torch's ways to make a forward pass fast, on a CPU.

Every contender computes the same network in evaluation mode on the same random pixels. It may work in two ways, and the
faster one counts: each thread has passes of 8 images of its own, or all threads share a pass of 64 images. The rounds
are interleaved. Prints one JSON line a network, then a Markdown table: images a second, the seconds until the second
pass may begin, and the distance of the output from the modules' own, as a share of its norm.
"""

import argparse
import concurrent.futures
import contextlib
import json
import os
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torchvision import models

from bench.machine import processor
from tlx.core.device import autocast
from tlx.features.frozen_forward import Forward

Run = Callable[[Tensor], Tensor]
NETWORKS = (
    "resnet18",
    "resnet50",
    "vgg16",
    "mobilenet_v2",
    "tf_efficientnet_lite0",
    "convnext_tiny",
    "vit_small_patch16_224",
)


def modules(net: nn.Module, x: Tensor, precision: str) -> Run:
    """The network as it is, channels last."""

    def run(x: Tensor) -> Tensor:
        with autocast(x.device, precision):
            made: Tensor = net(x)
        return made

    return run


def own(net: nn.Module, x: Tensor, precision: str) -> Run:
    """What tlx does."""
    return Forward(nn.Sequential(net), precision)


def frozen(net: nn.Module, x: Tensor, precision: str) -> Run:
    """`torch.jit.freeze` and `optimize_for_inference`."""
    with autocast(x.device, precision):
        traced = torch.jit.trace(net, x, check_trace=False)
    return torch.jit.optimize_for_inference(torch.jit.freeze(traced))  # type: ignore[no-any-return]


def onednn_graph(net: nn.Module, x: Tensor, precision: str) -> Run:
    """oneDNN's own graphs, by `torch.jit`."""
    torch.jit.enable_onednn_fusion(True)
    try:
        with autocast(x.device, precision):
            run = torch.jit.freeze(torch.jit.trace(net, x, check_trace=False))
        run(x), run(x)
    finally:
        torch.jit.enable_onednn_fusion(False)
    return run  # type: ignore[no-any-return]


def compiled(net: nn.Module, x: Tensor, precision: str) -> Run:
    """`torch.compile` with freezing."""
    import torch._inductor.config as inductor

    inductor.freezing = True
    return modules(torch.compile(net, dynamic=False), x, precision)


WAYS = {"modules": modules, "tlx": own, "jit.freeze": frozen, "oneDNN graph": onednn_graph, "compile": compiled}


@contextlib.contextmanager
def threads(number: int) -> Iterator[None]:
    """Within it an operation is divided among so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def rate(run: Run, x: Tensor, side_by_side: int, seconds: float) -> float:
    """Images a second of `side_by_side` threads that each call `run` for at least so long."""

    def work() -> int:
        done = 0
        with torch.no_grad():
            while time.perf_counter() - began < seconds:
                run(x)
                done += len(x)
        return done

    with concurrent.futures.ThreadPoolExecutor(side_by_side) as pool:
        began = time.perf_counter()
        done = sum(job.result() for job in [pool.submit(work) for _ in range(side_by_side)])
        return done / (time.perf_counter() - began)


def network(name: str) -> nn.Module:
    """A network with random weights, as it is frozen: no BatchNorm is the identity."""
    torch.manual_seed(0)
    net: nn.Module = (
        models.get_model(name, weights=None)
        if name in models.list_models()
        else timm.create_model(name, pretrained=False)
    )
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_var is not None and module.running_mean is not None:
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    return net.eval().requires_grad_(False).to(memory_format=torch.channels_last)


def measured(name: str, precision: str, rounds: int, seconds: float) -> dict[str, Any]:
    """Figures of one network: contender → images_per_second, prepared (seconds), difference; or failed."""
    cores = os.cpu_count() or 1
    few, many = (torch.rand(rows, 3, 224, 224).contiguous(memory_format=torch.channels_last) for rows in (8, 64))
    found: dict[str, Any] = {}
    runs: dict[str, tuple[Run, Run]] = {}
    with torch.no_grad():
        net = network(name)
        expected = net(few)
        for way, make in WAYS.items():
            began = time.perf_counter()
            try:
                with threads(1):
                    small = make(net, few, precision)
                    made = small(few)
                    prepared = time.perf_counter() - began
                with threads(cores):
                    large = small if way in ("modules", "tlx") else make(net, many, precision)
                    large(many)
            except Exception as error:  # another's library: what it raises is its result
                found[way] = {"failed": f"{type(error).__name__}: {str(error).strip().splitlines()[0][:120]}"}
                continue
            difference = float((made.float() - expected).norm() / expected.norm())
            runs[way] = small, large
            found[way] = {"prepared": prepared, "difference": difference, "rounds": []}
    for _ in range(rounds):
        for way, (small, large) in runs.items():
            with threads(1):
                apart = rate(small, few, cores, seconds)
            with threads(cores):
                together = rate(large, many, 1, seconds)
            found[way]["rounds"].append([apart, together])
    for figures in found.values():
        if "rounds" in figures:
            figures["images_per_second"] = max(
                statistics.median(column) for column in zip(*figures["rounds"], strict=True)
            )
    return found


def table(results: dict[str, dict[str, Any]]) -> str:
    """Markdown: a row a network."""
    lines = ["| network | " + " | ".join(WAYS) + " | tlx against the next best |", "|---" * (len(WAYS) + 2) + "|"]
    for name, found in results.items():
        cells, others = [], [f["images_per_second"] for way, f in found.items() if way != "tlx" and "rounds" in f]
        for way in WAYS:
            figures = found[way]
            if "failed" in figures:
                cells.append("failed")
                continue
            off = "" if figures["difference"] < 0.05 else f", differs by {figures['difference']:.2g}"
            cells.append(f"{figures['images_per_second']:.1f} ({figures['prepared']:.1f} s{off})")
        ratio = found["tlx"]["images_per_second"] / max(others)
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {ratio:.2f}× |")
    return "\n".join(lines)


def main() -> None:
    """Measures the networks that are named."""
    parser = argparse.ArgumentParser(prog="python -m bench.forward", description=str(__doc__).partition(": ")[2])
    parser.add_argument("--networks", nargs="+", default=NETWORKS, metavar="NAME", help="of torchvision or timm")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4, help="of each measurement")
    given = parser.parse_args()
    warnings.simplefilter("ignore")  # torch.jit is deprecated, which is no news here
    results = {}
    for name in given.networks:
        results[name] = measured(name, given.precision, given.rounds, given.seconds)
        print(json.dumps({"network": name, **results[name]}), flush=True)
    print(
        f"\nImages a second in {given.precision} (seconds until the second pass), on {processor()}, "
        f"torch {torch.__version__}\n"
    )
    print(table(results))


if __name__ == "__main__":
    main()

"""python -m bench.training_step: what the gradients of a batch cost on one thread of a processor, in each format.

Processor milliseconds an image, the median of the repetitions, of the forward and the backward pass of a network with
random weights: in fp32 with the channels first, as a tutorial's loop has them, and with the channels last; in bf16 with
the channels last, and the same with depthwise convolutions in fp32, as tlx trains.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from statistics import median

import timm
import torch
from torch import nn
from torch.nn import functional

from bench.machine import processor
from tlx.training.depthwise_precision import depthwise_in_fp32

CPU = torch.device("cpu")
WAYS = ("fp32, channels first", "fp32", "bf16", "bf16, depthwise in fp32")


def step(net: nn.Module, x: torch.Tensor, y: torch.Tensor, way: str) -> float:
    """Processor seconds of the passes over a batch, in a way of `WAYS`."""
    bf16 = torch.autocast("cpu", torch.bfloat16) if way.startswith("bf16") else nullcontext()
    net.zero_grad(set_to_none=True)
    began = time.process_time()
    with bf16, depthwise_in_fp32(CPU, "bf16") if "depthwise" in way else nullcontext():
        logits = net(x)
    torch.autograd.backward(functional.cross_entropy(logits.float(), y))
    return time.process_time() - began


def measured(name: str, batch: int, size: int, repeats: int) -> list[float]:
    """Milliseconds an image, in each of `WAYS`, which take turns."""
    torch.manual_seed(0)
    net = timm.create_model(name, num_classes=2).train()
    x, y = torch.randn(batch, 3, size, size), torch.arange(batch) % 2
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    for number in range(repeats + 1):
        for way in WAYS:
            layout = torch.contiguous_format if "first" in way else torch.channels_last
            net.to(memory_format=layout)
            taken = step(net, x.contiguous(memory_format=layout), y, way)
            if number:  # the first chooses oneDNN's kernels
                seconds[way].append(taken)
    return [1000 * median(seconds[way]) / batch for way in WAYS]


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.training_step", description=str(__doc__).partition(": ")[2])
    parser.add_argument("networks", nargs="+", metavar="NETWORK", help="names of timm's")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=224, help="pixels of a side (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=9)
    given = parser.parse_args(argv)
    torch.set_num_threads(1)
    print(f"{processor()}, one thread, processor ms an image\n\n| | {' | '.join(WAYS)} |\n|---|{'---:|' * len(WAYS)}")
    for name in given.networks:
        found = measured(name, given.batch, given.size, given.repeats)
        print(f"| `{name}` | {' | '.join(f'{ms:.1f}' for ms in found)} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The fastest that a network's frozen part can be fed: random pixels that are on the device already.

Everything before the last layer, evaluation mode, channels_last, bf16 where the device has it, the best of several
batch sizes. Prints one JSON line: images a second, and the batch size.
"""

import argparse
import json
import time
from typing import Any

import torch
from torch import nn
from torchvision import models

BATCHES = (64, 128, 256, 512, 1024)


def rate(net: nn.Module, x: torch.Tensor, at_least: float = 2.0) -> float:
    """Images a second over at least so many seconds, after a pass that is not counted."""

    def wait() -> None:
        if x.device.type == "cuda":
            torch.cuda.synchronize()

    net(x)
    wait()
    began, done = time.perf_counter(), 0
    while (took := time.perf_counter() - began) < at_least or not done:
        for _ in range(4):
            net(x)
        wait()
        done += 4 * len(x)
    return done / took


def main() -> None:
    """Measures one network."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--arch", default="resnet18")
    given = parser.parse_args()
    where = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    net: Any = models.get_model(given.arch, weights=None)
    net.fc = nn.Identity()
    net = net.eval().to(where, torch.bfloat16).to(memory_format=torch.channels_last)
    with torch.inference_mode():
        found = []
        for batch in BATCHES if where.type == "cuda" else BATCHES[:1]:
            try:
                x = torch.randn(batch, 3, 224, 224, device=where, dtype=torch.bfloat16)
                found.append((rate(net, x.to(memory_format=torch.channels_last)), batch))
            except torch.OutOfMemoryError:  # a small GPU: the batches before have been measured
                break
    print(json.dumps(dict(zip(("images_per_second", "batch"), max(found), strict=True))))


if __name__ == "__main__":
    main()

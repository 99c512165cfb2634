"""What is measured, as data: one entry per row of the table.

The fields are said once and give both sides' arguments, so that both do the same work.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LOOPS = ("plain", "careful", "lightning", "fastai")
BF16_LOOPS = ("careful", "synthetic")
FP32: dict[str, tuple[str, ...]] = {"tlx": (), "tlx fp32": ("runtime.precision=fp32",)}
RATES = ",".join(f"{rate:g}" for rate in (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1))
SEEDS = ",".join(map(str, range(10)))


@dataclass(frozen=True)
class Claim:
    """A required ratio: `contender` is at least `ratio` times as fast as `against`, or takes at most `at_most` times
    its time."""

    contender: str
    ratio: float
    against: str = "plain"
    at_most: bool = False


@dataclass(frozen=True)
class Work:
    """A piece of work and who does it.

    Attributes:
        data: `ants-bees` or `cifar`, the option that gives its folder.
        measure: `training` (decoding, features and training, no imports), `command` (everything), `rate` (images a
            second of the feature pass), `accuracy` (of the jobs of a multirun).
        train: the submodules that learn in the loops; `overrides` say the same to tlx.
        limit: training and test images; tlx validates on as many as it tests on.
        variants: what each contender of tlx is given beyond that.
        within: for accuracy: by how much the first variant may lie below the last; None: within the last's interval.
        cuda: only where there is a GPU.
    """

    name: str
    title: str
    data: str
    claims: tuple[Claim, ...] = ()
    measure: str = "training"
    arch: str | None = "resnet18"  # with random weights; None: tlx's default backbone with its own
    train: tuple[str, ...] = ("fc",)
    epochs: int = 5
    batch_size: int = 32
    optimizer: str = "sgd"
    lr: float = 1e-3
    augment: str = "none"
    limit: tuple[int, int] | None = None
    overrides: tuple[str, ...] = ()
    loops: tuple[str, ...] = LOOPS
    variants: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: {"tlx": ()})
    within: float | None = None
    cuda: bool = False

    def tlx(self, variant: str, data: Path, output: Path) -> list[str]:
        """The words after `python -m tlx`; each repetition has an `output` of its own, so that nothing is kept there
        from another."""
        words = [f"dataset={self.data.replace('-', '_').replace('cifar', 'cifar10')}", f"dataset.root={data}"]
        words += [f"output={output}", "runtime.offline=true", f"augmentation={self.augment}"]
        if self.arch is not None:
            words += [f"backbone={self.arch}", "backbone.weights=none"]
            words += ["backbone.resize=224"] if self.data == "cifar" else []
            words += [f"training.lr={self.lr:g}"] if "training.lr" not in " ".join(self.variants[variant]) else []
        words += [f"training.epochs={self.epochs}", f"training.batch_size={self.batch_size}"]
        words += [f"optimizer={self.optimizer}"]
        if self.limit:
            train, test = self.limit
            words += [f"dataset.limit.train={train}", f"dataset.limit.val={test}", f"dataset.limit.test={test}"]
        tracking = [] if any(word.startswith("tracking=") for word in self.overrides) else ["tracking=none"]
        return [*words, *tracking, *self.overrides, *self.variants[variant]]

    def loop(self, name: str, data: Path, epochs: int, workers: int) -> list[str]:
        """The words after `python` for one of the loops. `workers`: processes that read images, for all but plain."""
        module = {"careful": "plain", "lightning": "lightning_loop", "fastai": "fastai_loop"}.get(name, name)
        if name == "synthetic":
            return ["-m", "bench.synthetic", "--arch", str(self.arch)]
        words = ["-m", f"bench.{module}", "--images" if self.data == "ants-bees" else "--cifar", str(data)]
        words += ["--arch", str(self.arch), "--train", *self.train, "--epochs", str(epochs)]
        words += ["--batch-size", str(self.batch_size), "--optimizer", self.optimizer, "--lr", f"{self.lr:g}"]
        words += ["--augment", self.augment, "--workers", str(0 if name == "plain" else workers)]
        words += ["--limit", *map(str, self.limit)] if self.limit else []
        return [*words, *(["--amp"] if name == "careful" else [])]

    def contenders(self, machine: Mapping[str, Any]) -> list[str]:
        """Who takes part. Where auto is fp32, tlx takes part once; without units for bf16, nobody who asks for it."""
        own = [name for name in self.variants if machine["bf16"] or name != "tlx" or "tlx fp32" not in self.variants]
        return [name for name in [*self.loops, *own] if "bf16" in machine["peak"] or not self.asks_for_bf16(name)]

    def asks_for_bf16(self, contender: str) -> bool:
        """Whether a contender computes in bf16 whatever the machine is."""
        return contender in BF16_LOOPS or "runtime.precision=bf16" in self.variants.get(contender, ())


_CIFAR = {"data": "cifar", "limit": (2000, 500), "batch_size": 64, "optimizer": "adam"}
_WHOLE: dict[str, Any] = {"data": "cifar", "batch_size": 64, "optimizer": "adam", "cuda": True}
_LAYER4 = (  # in one phase, as the loops
    *("strategy=finetune", "strategy.phases.probe=null", "strategy.phases.tune.lr=1e-3"),
    "strategy.phases.tune.statistics=learning",
)
_GPU_LOOPS = ("plain", "careful")
_FULL: dict[str, Any] = {  # what nothing is cached for but decoded images; no figure of bf16 where there are no units
    "train": ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4", "fc"),
    "limit": (96, 48),
    "epochs": 4,
    "loops": ("plain", "careful"),
    "overrides": ("strategy=full", "strategy.phases.tune.lr=1e-3"),
    "variants": {"tlx fp32": ("runtime.precision=fp32",), "tlx bf16": ("runtime.precision=bf16",)},
    "claims": (Claim("tlx fp32", 1.5), Claim("tlx bf16", 3)),
}
_PROBE: dict[str, Any] = {
    "measure": "accuracy",
    "arch": None,
    "loops": (),
    "optimizer": "adam",
    "epochs": 10,
    "variants": {p: ("-m", f"seed={SEEDS}", f"runtime.precision={p}") for p in ("bf16", "fp32")},
}

WORKS: tuple[Work, ...] = (
    Work(
        "classifier", "ants/bees, classifier, 25 epochs", "ants-bees",
        (Claim("tlx", 80), Claim("tlx fp32", 35)), epochs=25, variants=FP32,
    ),
    Work(
        "command", "ants/bees, classifier, 25 epochs: whole command, with MLflow", "ants-bees",
        (Claim("tlx", 25),), measure="command", epochs=25, overrides=("tracking=sqlite",),
    ),
    Work(
        "layer4", "ants/bees, layer4 and classifier, 10 epochs", "ants-bees",
        (Claim("tlx", 6), Claim("tlx fp32", 3)), train=("layer4", "fc"), epochs=10, variants=FP32,
        overrides=_LAYER4,
    ),
    Work("full", "ants/bees, 96 + 48 images, all layers, 4 epochs", "ants-bees", **_FULL),
    Work(
        "full-live", "ants/bees, 96 + 48 images, crop_flip, all layers, 4 epochs", "ants-bees",
        augment="crop_flip", **_FULL,
    ),
    Work(
        "cifar", "CIFAR-10, 2,000 + 500 images, classifier, 5 epochs",
        claims=(Claim("tlx", 30),), **_CIFAR,  # type: ignore[arg-type]
    ),
    Work(
        "alexnet", "ants/bees, alexnet's fully-connected layers, 10 epochs, Adam", "ants-bees",
        (Claim("tlx", 3),), arch="alexnet", train=("classifier",), epochs=10, optimizer="adam", lr=1e-4,
    ),
    Work(
        "sweep", "ants/bees, a sweep of 8 learning rates against one run", "ants-bees",
        (Claim("sweep", 2, "one run", at_most=True),), measure="command", epochs=25, loops=(),
        variants={"one run": (), "sweep": ("-m", f"training.lr={RATES}")},
    ),
    Work(
        "views", "ants/bees, crop_flip, 20 epochs, 4 views", "ants-bees",
        (Claim("tlx", 8),), epochs=20, augment="crop_flip", overrides=("features.views=4",),
    ),
    Work(
        "accuracy-views", "ants/bees, crop_flip, 20 epochs: 4 views, or a new one in each epoch", "ants-bees",
        within=0.01,
        **{
            **_PROBE, "epochs": 20, "augment": "crop_flip",
            "variants": {
                "4 views": ("-m", f"seed={SEEDS}", "features.views=4"),
                "live": ("-m", f"seed={SEEDS}", "features.mode=live"),
            },
        },
    ),
    Work("accuracy-ants-bees", "ants/bees, linear probe: bf16 or fp32 features", "ants-bees", **_PROBE),
    Work(
        "accuracy-cifar", "CIFAR-10, 2,000 images, linear probe: bf16 or fp32 features", "cifar",
        limit=(2000, 500), **_PROBE,
    ),
    *(
        work
        for arch in ("resnet18", "resnet50")
        for work in (
            Work(
                f"gpu-features-{arch}", f"CIFAR-10 whole, {arch}: feature pass",
                claims=(Claim("tlx", 0.8, "synthetic"),), measure="rate",
                arch=arch, loops=("synthetic",), **{**_WHOLE, "epochs": 1},
            ),
            Work(
                f"gpu-classifier-{arch}", f"CIFAR-10 whole, {arch}, classifier, 5 epochs", arch=arch, loops=_GPU_LOOPS,
                **_WHOLE,
            ),
            Work(
                f"gpu-command-{arch}", f"CIFAR-10 whole, {arch}, classifier, 5 epochs, whole command",
                claims=(Claim("tlx", 30), Claim("tlx", 8, "careful")), measure="command", arch=arch, loops=_GPU_LOOPS,
                **_WHOLE,
            ),
            Work(
                f"gpu-layer4-{arch}", f"CIFAR-10 whole, {arch}, layer4 and classifier, 5 epochs",
                claims=(Claim("tlx", 4, "careful"),), arch=arch, train=("layer4", "fc"), loops=_GPU_LOOPS,
                overrides=_LAYER4, **_WHOLE,
            ),
        )
    ),
)  # fmt: skip
BY_NAME = {work.name: work for work in WORKS}


def python(words: list[str]) -> list[str]:
    """A command line of this interpreter."""
    return [sys.executable, *words]

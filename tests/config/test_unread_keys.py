"""A typed value has an effect, or a line says that it has none and what to type instead."""

import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from tlx.backbones.factories import build as network
from tlx.cli.main import main
from tlx.config import schema, unread_keys
from tlx.config.compose import choices, compose, without_hydra
from tlx.config.identity import ASIDE, key
from tlx.config.schema import Config, Phase
from tlx.config.validation import TRAINING, checked
from tlx.core.device import device_of
from tlx.core.errors import Pruned, RequestError
from tlx.core.trees import flat
from tlx.datasets import splits
from tlx.runs import prepare, run
from tlx.sweeps import sweep, sweep_plan

STRATEGIES = sorted(choices("strategy"))
TINY = ["backbone=small_cnn", "backbone.input_size=32", "dataset.train=8", "dataset.test=4", "training.epochs=1"]
TINY += ["tracking=none", "runtime.precision=fp32"]
NORMED = ["backbone=timm", "backbone.name=resnet10t", "backbone.weights=none", *TINY[1:]]  # has normalisation layers
SMALL = {name: NORMED if name == "norm_only" else TINY for name in STRATEGIES}
# Of the strategies those whose phases have the solvers, the components and the keys of all.
DIFFERENT = ("feature_extraction", "finetune", "linear_probe", "lp_ft", "knn", "many_heads", "lora", "scratch")
BESIDE = [[], *([*TINY[:4], f"strategy={name}"] for name in (*DIFFERENT, "coarse_to_fine"))]
BESIDE += [[*TINY[:4], "source=shapes", "augmentation=flip"], [*TINY[:4], "optimizer=sgd", "schedule=cosine"]]

# What changes no result: where things lie, how fast they are computed, what is shown. `dataset.root` is in the
# identity by the content of the images.
ASIDE_KEYS = (*ASIDE, "dataset.root", "dataset.archive")

# A value to type for each key whose default says nothing about it. A new key of the schema needs a line here, unless
# its default is a number or yes/no.
VALUES: dict[str, str] = {
    "seeds": "2",
    "folds": "2",
    "output": "elsewhere",
    "resume": "auto",
    "sweep.name": "mine",
    "backbone._target_": "tlx.backbones.torchvision",
    "backbone.name": "other",
    "backbone.weights": "some.pth",
    "backbone.url": "https://example.org/net-12345678.pth",
    "backbone.licence": "mine",
    "backbone.input_size": "48",
    "backbone.resize": "80",
    "backbone.crop": "32",
    "backbone.mean": "[0.4,0.4,0.4]",
    "backbone.std": "[0.4,0.4,0.4]",
    "backbone.interpolation": "nearest",
    "backbone.stages": "",  # each stage's parts are keys of their own
    "backbone.classifier": "",  # another stage
    "backbone.arguments": "",  # its keys are the network's own
    "head.hidden": "[16]",
    "head.stages": "[all]",
    "head.references": "0",
    "dataset._target_": "tlx.datasets.cifar10",
    "dataset.name": "other",
    "dataset.limit.train": "9",
    "dataset.limit.val": "3",
    "dataset.limit.test": "3",
    "dataset.splits.train": "a",
    "dataset.splits.val": "b",
    "dataset.splits.test": "c",
    "dataset.range": "[0, 4095]",
    "dataset.audit": "fail",
    "dataset.exclude": "left_out.txt",
    "dataset.group": "shapes",
    "dataset.per_class": "2",
    "dataset.folds": "3",
    "dataset.fold": "1",
    "dataset.on_error": "skip",
    "dataset.shapes": "[star,circle]",
    "augmentation.input": "image",
    "augmentation.transforms": "[{_target_: torchvision.transforms.v2.RandomHorizontalFlip}]",
    "strategy.weights": "none",
    "optimizer._target_": "torch.optim.AdamW",
    "optimizer.betas": "[0.8,0.99]",
    "schedule._target_": "tlx.schedules.cosine",
    "training.patience": "3",
    "training.sampler": "balanced",
    "training.refit": "true",
    "source.training.refit": "true",
    "training.ema": "0.9",
    "training.mixing": "{_target_: torchvision.transforms.v2.MixUp}",
    "source.training.mixing": "{_target_: torchvision.transforms.v2.MixUp}",
    "training.mix_at": "features",
    "source.training.mix_at": "features",
    "training.average_last": "2",
    "loss._target_": "tlx.losses.focal",
    "training.class_weights": "balanced",
    "training.clip_norm": "1",
    "features.mode": "live",
    "features.views": "2",
    "features.budget": "1000",
    "features.shared": "true",
    "evaluation.choose_by": "val_accuracy",
    "evaluation.samples": "{_target_: tlx.datasets.shapes, shapes: [star, circle], train: 3, test: 3}",
    "evaluation.views": "[{flip: true}]",
    "evaluation.unknown.rate": "0.1",
    "evaluation.unknown.dataset": "strangers",
    "runtime.device": "cpu",
    "runtime.precision": "fp32",
    "runtime.threads": "1",
    "runtime.workers": "1",
    "runtime.devices": "2",
    "tracking.uri": "sqlite:///other.db",
    "tracking.experiment": "mine",
    "tracking.register": "mine",
    "source.name": "mine",
    "source.dataset.on_error": "skip",
    "source.dataset.limit.train": "9",
    "source.dataset.limit.val": "9",
    "source.dataset.limit.test": "9",
    "source.dataset.splits.train": "a",
    "source.dataset.splits.val": "b",
    "source.dataset.splits.test": "c",
    "source.dataset.range": "[0, 4095]",
    "dataset.pretraining_overlap": "some of them",
    "source.dataset.pretraining_overlap": "some of them",
    "source.dataset.audit": "fail",
    "source.dataset.exclude": "left_out.txt",
    "source.dataset.group": "shapes",
    "source.dataset.per_class": "2",
    "source.dataset.folds": "2",
    "source.dataset.fold": "0",
    "source.augmentation.input": "image",
    "source.augmentation.transforms": "[{_target_: torchvision.transforms.v2.RandomHorizontalFlip}]",
    "source.strategy.weights": "none",
    "source.dataset._target_": "tlx.datasets.cifar10",
    "source.dataset.name": "other",
    "source.dataset.shapes": "[star,circle]",
    "source.optimizer._target_": "torch.optim.AdamW",
    "source.optimizer.betas": "[0.8,0.99]",
    "source.schedule._target_": "tlx.schedules.cosine",
    "source.optimizer": "{_target_: torch.optim.SGD}",
    "source.schedule": "{_target_: tlx.schedules.cosine}",
    "source.training.patience": "3",
    "source.training.sampler": "balanced",
    "source.training.ema": "0.9",
    "source.training.average_last": "2",
    "source.training.class_weights": "balanced",
    "source.training.clip_norm": "1",
    "train_from": "head",
    "train_to": "",  # the last stage, which has no other name in every network
    "learns": "[bias]",
    "statistics": "all",
    "solver": "other",
    "optimizer": "{_target_: torch.optim.SGD}",
    "schedule": "{_target_: tlx.schedules.cosine}",
    "epochs": "3",
    "min_steps": "50",
    "lr": "0.123",
    "batch_size": "7",
    "patience": "2",
}
GROUPS = {"backbone": "resnet18", "head": "mlp", "augmentation": "crop_flip", "optimizer": "nadam", "schedule": "step"}
GROUPS |= {"loss": "focal", "source": "leaves", "dataset": "new_shapes", "tracking": "server"}
WITH = {"dataset.folds": ["dataset.fold=0"], "dataset.fold": ["dataset.folds=2"]}


def composed(*overrides: str) -> tuple[Config, DictConfig]:
    node = compose(overrides)
    return checked(without_hydra(node)), node


def leaves(node: DictConfig) -> Iterator[tuple[str, Any]]:
    """Every key that can be typed beside a configuration, with its value: those of phases that are null, too."""
    tree: Any = OmegaConf.to_container(without_hydra(node), resolve=True)
    for name in tree["strategy"]["phases"]:
        for field in fields(Phase):
            yield f"strategy.phases.{name}.{field.name}", tree["strategy"]["phases"][name][field.name]
    tree["strategy"].pop("phases")
    tree["source"]["strategy"].pop("phases")
    yield from flat(tree)


def value(name: str, before: Any) -> str:
    """Something else than `before`, or nothing for a key that has no value of its own."""
    if name.startswith("backbone.stages."):
        return "[other]"
    name = re.sub(r"strategy\.phases\.\w+\.(optimizer|schedule)\.", r"\1.", name)
    name = name.rpartition(".")[2] if name.startswith("strategy.phases.") else name
    if name in VALUES:
        return VALUES[name]
    if isinstance(before, bool):
        return str(not before).lower()
    if isinstance(before, int | float):
        return str(before + 1) if isinstance(before, int) else f"{before / 2 + 0.05:.4g}"
    pytest.fail(f"{name}={before}: tests/config/test_unread_keys.py needs a value to type for this key (VALUES)")


def verdict(typed: str, node: DictConfig, mine: DictConfig, plain: Config, net: Any) -> str:
    """The message to a user who types it, or what it changes. `mine`: `node` without Hydra's own."""
    name = typed.partition("=")[0]
    try:
        config = checked(mine)
        said = unread_keys.Typed([typed], unread_keys.unread(node, several=False))
        lines = said.warnings()
        if name.startswith("dataset.") and not name.endswith("_target_"):
            lines += said.warnings(splits.unread(prepare.found(config), config.dataset))
        if name.startswith("strategy.phases."):
            lines += said.warnings(prepare.unread(config, net, prepare.plans_of(config, net)))
    except RequestError as error:
        return f"refused: {error}"
    if lines:
        return f"warned: {lines[0]}"
    if any(name == aside or name.startswith(f"{aside}.") for aside in ASIDE_KEYS):
        return "changes no result"
    return "changes the identity" if key(config) != key(plain) else "NOTHING"


@contextmanager
def having(words: Iterable[str], *nodes: DictConfig) -> Iterator[None]:
    """The configurations with other values, which are put back: to compose anew takes ten times as long."""
    values = [(name, yaml.safe_load(text)) for name, _, text in (word.partition("=") for word in words)]
    before = [(node, name, OmegaConf.select(node, name)) for node in nodes for name, _ in values]
    for node, name, _ in before:
        OmegaConf.update(node, name, dict(values)[name], merge=False)
    yield
    for node, name, was in before:
        OmegaConf.update(node, name, was, merge=False)


@pytest.mark.parametrize("beside", BESIDE, ids=" ".join)
def test_each_key_changes_the_identity_or_is_refused_or_warned_of_or_changes_no_result(beside: list[str]) -> None:
    plain, node = composed(*beside)
    net, _ = network(plain.backbone, plain.head, 3, seed=0, drawn=False)
    mine, table = without_hydra(node), dict[str, str]()
    for group in GROUPS:
        typed = f"{group}={GROUPS[group]}"
        other = compose([*beside, typed])
        table[typed] = verdict(typed, other, without_hydra(other), plain, net)
    for name, was in [*leaves(node)]:
        text = value(name, was)
        if name == "training.refit":  # what null stands for depends on the strategy
            text = str(not plain.training.refit).lower()
        if text not in ("", str(was)):
            typed = f"{name}={text}"
            with having([*WITH.get(name, []), typed], node, mine):
                table[typed] = verdict(typed, node, mine, plain, net)
    print(f"\n{' '.join(beside) or 'defaults'}")
    for one, found in table.items():
        print(f"  {one[:70]:<70}  {found}")
    assert not [one for one, found in table.items() if found == "NOTHING"]


def places(kind: Any, path: str = "") -> Iterator[tuple[type, str]]:
    """The classes of the schema, each with its place in a configuration."""
    yield kind, path
    for field in fields(kind):
        data = kind in (Config, schema.Source) and field.name == "dataset"
        inner = schema.DatasetConfig if data else field.type
        if isinstance(inner, type) and is_dataclass(inner) and inner is not schema.Source:
            yield from places(inner, f"{path}.{field.name}".lstrip("."))


def watch(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The keys that anybody looks at from now on, but those who copy, check or write all of them."""
    seen = set[str]()

    def watched(kind: type, path: str) -> Any:
        names = {field.name for field in fields(kind)}

        def look(one: Any, name: str) -> Any:
            if name in names:
                caller = sys._getframe(1)
                module, function = caller.f_globals["__name__"], caller.f_code.co_qualname
                checks = module in ("dataclasses", "tlx.config.key_rules")
                if not checks and (module != "tlx.config.validation" or function.startswith("_inherited")):
                    seen.add(f"{path}.{name}".lstrip("."))
            return object.__getattribute__(one, name)

        return look

    for kind, path in places(Config):
        monkeypatch.setattr(kind, "__getattribute__", watched(kind, path), raising=False)
    return seen


WATCHED = [[*SMALL[name], f"strategy={name}"] for name in STRATEGIES]
WATCHED += [[*TINY, "augmentation=flip", "features.views=2"], [*TINY, "dataset.folds=2", "dataset.fold=0"]]
WATCHED += [[*TINY, "features.mode=live"]]


@pytest.mark.parametrize("words", WATCHED, ids=" ".join)
def test_what_a_run_never_looks_at_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    monkeypatch.chdir(tmp_path)
    config, node = composed(*words)
    known = unread_keys.unread(node, several=False) | splits.unread(prepare.found(config), config.dataset)
    otherwise = {
        "strategy.weights",
        "dataset.on_error",
        "evaluation.samples",
    }  # by `checked`; for bad files; at the end
    in_vain = {
        "backbone.classifier",
        "backbone.crop",
        "backbone.url",
        "features.views",
        "features.budget",
        "features.shared",
        "tracking.model",
    }
    seen = watch(monkeypatch)

    def stop(row: Mapping[str, Any]) -> None:
        if row["phase"] == list(config.strategy.phases)[-1]:  # each phase reads what its solver needs
            raise Pruned("seen enough")

    with pytest.raises(Pruned):
        run.run(checked(without_hydra(node)), tmp_path / "run", command="", watch=stop)
    every = {f"{path}.{field.name}".lstrip(".") for kind, path in places(Config) for field in fields(kind)}
    inner = {path for _, path in places(Config)} | {"source", "strategy.phases", "dataset.reader"}
    unseen = every - seen - inner

    def covered(name: str, by: Iterable[str]) -> bool:
        return any(name == one or name.startswith(f"{one}.") for one in by)

    assert not {name for name in unseen - otherwise if not covered(name, [*known, *ASIDE_KEYS])}
    in_vain |= {"tracking.uri", "tracking.experiment"}  # filled in from the environment, whoever tracks
    in_vain |= {"loss", *(f"training.{name}" for name in TRAINING)}  # tried out, whatever the solver
    assert not {name for name in seen - inner - in_vain if covered(name, known)}


IDLE = {
    "strategy=finetune training.lr=1e-3,1e-2": "training.lr=0.001: has no effect: each phase has its own; "
    "change strategy.phases.probe.lr and strategy.phases.tune.lr, or training.lr_factor",
    "strategy=feature_extraction,finetune training.lr=1e-3,1e-2": "training.lr=0.001: has no effect with "
    "strategy=finetune: each phase has its own",
    "strategy=finetune training.lr=0.5 seed=0,1": "training.lr=0.5: has no effect: ",
    "strategy=coarse_to_fine optimizer=adam,sgd": "optimizer=adam: has no effect: each phase has its own; change "
    "optimizer@strategy.phases.probe.optimizer and optimizer@strategy.phases.tune.optimizer",
    "strategy=coarse_to_fine optimizer.weight_decay=0,1": "optimizer.weight_decay=0: has no effect: ",
    "strategy=scratch backbone.weights=a.pth,b.pth": "backbone.weights=a.pth: has no effect: strategy.weights=none "
    "starts from random weights; take another strategy",
    "strategy=feature_extraction,finetune training.lr=1e-3,1e-2 seeds=2": "training.lr=0.001: has no effect with "
    "strategy=finetune: each phase has its own",
    "+hydra.launcher.nope=1 seed=0,1": "+hydra.launcher.nope=1: has no effect: launch=basic has no settings",
    "strategy=scratch,full source=none,shapes": "source=shapes: has no effect with strategy=scratch: strategy.weights",
    "source=shapes backbone=small_cnn backbone.weights=a.pth,none": "backbone.weights=a.pth: has no effect: the "
    "backbone starts from the weights of the source task; take source=none for other weights",
    "source.training.lr=1e-3,1e-2": "source.training.lr=0.001: has no effect: there is no source task",
    "tracking=none tracking.experiment=mine seed=0,1": "tracking.experiment=mine: has no effect: nothing is tracked",
    "strategy=full training={lr: 3} seed=0,1": "training={lr:3}: has no effect: the phase has its own",
    "hydra.run.dir=x seed=0,1": "hydra.run.dir=x: has no effect: a sweep's folder is hydra.sweep.dir",
    "resume=auto seed=0,1": "resume=auto: has no effect: a sweep is resumed by its name",
    "seed=0,1 seed=2": "seed=0,1: has no effect: seed=2 comes after it",
    "folds=2 dataset.fold=1 dataset.folds=2": "folds=2: stands for every fold; leave out ",
    # No two jobs are the same, and none is left out in silence.
    "seed=0,0": "seed=0,0: 0 is given twice",
    "runtime.threads=1,2 runtime.workers=0,1": "runtime.threads=1, runtime.workers=0, runtime.workers=1, "
    "runtime.threads=2: jobs of a sweep that differ in these alone give the same result; keep one of them",
    "features.store=0,1000 seed=0,1": "features.store=0, features.store=1000: jobs of a sweep that differ in these",
    "training.lr=1e-3,1.0e-3": "training.lr=1e-3,1.0e-3: 0.001 is given twice",
    "training.epochs=5 training.patience=5,9": "training.patience=5, training.patience=9: jobs of a sweep that differ",
    "backbone.licence=a,b": "backbone.licence=a, backbone.licence=b: jobs of a sweep that differ in these alone",
}


@pytest.mark.parametrize("words", IDLE)
def test_a_sweep_refuses_values_without_an_effect_and_jobs_that_are_equal(words: str) -> None:
    with pytest.raises(RequestError) as raised:
        sweep_plan.plan(re.split(r" (?=[\w.+]+=)", words), None)
    assert str(raised.value).startswith(IDLE[words])


def test_jobs_that_are_equal_on_this_machine_are_refused_by_name(tmp_path: Path) -> None:
    here = device_of("auto").type
    auto = f"runtime.device={here}, runtime.device=auto: jobs of a sweep that differ in these alone give the same"
    for values, line in (
        (f"runtime.device={here},auto", auto),
        ("runtime.device=cpu,cuda:99", "runtime.device=cuda:99: "),
    ):
        jobs, _ = sweep_plan.plan([*TINY, f"output={tmp_path}", values], None)
        with pytest.raises(RequestError) as raised:
            sweep.check_data(jobs)
        assert str(raised.value).startswith(line)
    jobs, _ = sweep_plan.plan(["training.patience=5,6", "training.epochs=6"], None)
    assert len(jobs) == 2, "a patience that can be used up is a choice"


def test_what_one_job_of_a_sweep_reads_the_others_may_share(caplog: pytest.LogCaptureFixture) -> None:
    jobs, _ = sweep_plan.plan(["strategy=finetune,scratch", "backbone.weights=a.pth", "seed=3", "seed=4"], None)
    line = "has no effect: strategy.weights=none starts from random weights; take another strategy"
    assert [job.typed.warnings() for job in jobs] == [[], [f"backbone.weights=a.pth: {line}"]]
    assert caplog.messages == ["seed=3: has no effect: seed=4 comes after it"]


def of_images(folder: Path) -> str:
    for part in ("train", "val", "test"):
        for name in "ab":
            (folder / part / name).mkdir(parents=True)
            for i in range(3):
                pixels = np.full((8, 8, 3), 20 * i + 9 * (part > "tr") + 99 * (name > "a"), np.uint8)
                Image.fromarray(pixels).save(folder / part / name / f"{part}{i}.png")
    return f"dataset.root={folder}"


def test_what_the_data_decides_is_refused_in_a_sweep_and_warned_of_in_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    whole = [*TINY[:2], *TINY[4:], "dataset=image_folder", of_images(tmp_path / "photos")]
    line = "has no effect: the data has a validation part of its own; dataset.limit.val takes less of it"
    assert main(["-m", *whole, "dataset.val_fraction=0.3,0.4"]) == 2
    assert capsys.readouterr().err == f"tlx: dataset.val_fraction=0.3: {line}\n"
    assert main(["-m", *whole, "dataset.val_fraction=0.3", "seed=0,1"]) == 2
    assert main(["-m", *whole, "strategy.phases.probe.statistics=none", "seed=0,1", "--dry-run"]) == 0
    assert (
        "warning: strategy.phases.probe.statistics=none: has no effect: no trainable layer" in capsys.readouterr().err
    )
    assert main([*whole, "dataset.val_fraction=0.3", "strategy=finetune", "training.lr=0.5"]) == 0
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith(
        "warning: training.lr=0.5: has no effect: each phase has its own; change strategy.phases."
    )
    assert said[1] == f"warning: dataset.val_fraction=0.3: {line}"
    (log,) = Path("outputs").glob("*/*/tlx.log")
    assert line in log.read_text()
    assert not Path("outputs/sweeps").exists()

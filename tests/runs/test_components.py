"""Whatever a YAML names is made and tried before training; what is wrong with it is one line, and leaves nothing."""

import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tlx.cli.main import main
from tlx.config.compose import compose, without_hydra
from tlx.config.validation import checked
from tlx.core.errors import RequestError
from tlx.core.stopwatch import Clock
from tlx.runs import components, run
from tlx.runs.prepare import prepare

TINY = ["backbone=small_cnn", "backbone.input_size=32", "dataset.train=8", "dataset.test=4", "tracking=none"]
OWN = "_target_: tests.runs.test_components"


def late(epoch: float, epochs: int, gives: str = "") -> float:
    """A schedule that is good at first."""
    if epoch > 2 and not gives:
        raise LookupError("no rate")
    return float(gives) if epoch > 2 else 1.0


def flat(image: Any) -> Any:
    """A transform that makes no image."""
    return image.flatten()


class AnySize:
    """A transform whose images are no batch."""

    def __call__(self, image: Any) -> Any:
        return image[:, : int(torch.randint(4, 32, ()))]


def nothing() -> str:
    """A reader that gives something else than a data set."""
    return "images"


def angry(**_: Any) -> None:
    """A reader that fails."""
    raise ArithmeticError("not today")


SHAPES = "_target_: tlx.datasets.shapes, shapes: [star, circle], train: 3"
WRONG = {
    "augmentation=crop_flip augmentation.transforms.0.size=256/0": "augmentation.transforms[0].size=256/0: must be a "
    "share of the input size of one pixel at least, as in 256/224 (of 32)",
    "augmentation=crop_flip augmentation.transforms.0.size=1/224": "augmentation.transforms[0].size=1/224: must be a ",
    "augmentation.transforms=[{_target_:torchvision.transforms.v2.RandomApply,transforms:[{_target_:torch.nope}]}]": (
        "augmentation.transforms[0].transforms[0]._target_=torch.nope: cannot be found"
    ),
    "augmentation.transforms=[{_target_:torchvision.transforms.v2.RandomCrop,size:999}]": "augmentation.transforms[0]: "
    "torchvision.transforms.v2.RandomCrop does not take size=999",
    f"augmentation.transforms=[{{{OWN}.flat}}]": "augmentation.transforms[0]: ",
    "augmentation.transforms=[{_target_:torchvision.transforms.v2.RandomCrop,size:-5}]": "augmentation.transforms[0]: "
    "torchvision.transforms.v2.RandomCrop size=-5 makes [3, ",
    f"augmentation.transforms=[{{{OWN}.AnySize}}]": "augmentation.transforms: give views of different shapes, [3, ",
    "augmentation.transforms=[{_target_:torchvision.transforms.v2.CenterCrop,size:2}]": "augmentation.transforms: give "
    "views [3, 2, 2], which small_cnn cannot take (",
    "augmentation.transforms=[3]": "augmentation.transforms[0]=3: needs a _target_",
    "evaluation.samples={_target_:tlx.datasets.nope}": "evaluation.samples._target_=tlx.datasets.nope: cannot be found",
    "evaluation.samples={_target_:tlx.datasets.shapes}": "evaluation.samples: tlx.datasets.shapes failed: ",
    "evaluation.samples={_target_:tlx.datasets.image_folder,root:nowhere}": "dataset.root=nowhere: no such folder",
    "evaluation.samples={_target_:tlx.config.identity.ASIDE}": "evaluation.samples._target_="
    "tlx.config.identity.ASIDE: is no function",
    f"evaluation.samples={{{SHAPES}, test: 3, sise: 3}}": "evaluation.samples.sise: tlx.datasets.shapes takes no such",
    f"evaluation.samples={{{OWN}.nothing}}": "evaluation.samples: tests.runs.test_components.nothing gives str, not ",
    f"evaluation.samples={{{OWN}.angry}}": "evaluation.samples: "
    "tests.runs.test_components.angry failed: ArithmeticError: ",
    "evaluation.samples=mine": "evaluation.samples=mine: needs a _target_",
    "++strategy.phases.probe.optimizer={_target_:torch.optim.LBFGS}": "optimizer of phase probe: torch.optim.LBFGS ",
    f"++strategy.phases.probe.schedule={{{OWN}.late}}": "schedule of phase probe: "
    "tests.runs.test_components.late failed: "
    "LookupError: no rate",
    f"++strategy.phases.probe.schedule={{{OWN}.late, gives: nan}}": "schedule of phase probe: ",
    "loss=logit_adjusted training.sampler=balanced": "loss=logit_adjusted training.sampler=balanced: take one of ",
    "dataset._target_=math.pi": "dataset._target_=math.pi: is no function or class, but float",
}


def config_of(*words: str) -> Any:
    return checked(without_hydra(compose([*TINY, *words])))


@pytest.mark.parametrize("line", WRONG)
def test_what_cannot_be_made_is_said_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [line] if line.startswith(("ev", "++")) or "=[" in line else line.split()
    with pytest.raises(RequestError) as raised:
        prepare(config_of(*words, "features.store=0"), Clock())
    assert str(raised.value).startswith(WRONG[line])
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.iterdir())


def test_a_command_with_it_ends_with_2_and_leaves_nothing_in_a_sweep_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    wrong = "evaluation.samples={_target_: tlx.datasets.nope}"
    for words in ([*TINY, wrong], ["-m", *TINY, wrong, "seed=0,1"], ["--dry-run", *TINY, wrong]):
        assert main(words) == 2
        said = capsys.readouterr().err.splitlines()
        assert len(said) == 1
        assert said[0].startswith("tlx: evaluation.samples._target_=tlx.datasets.nope: cannot be found")
        assert not Path("outputs").exists()


def test_on_resume_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    for i in range(6):
        (tmp_path / "more/test" / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        (tmp_path / "more/train" / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        for part in ("test", "train"):
            image = Image.fromarray(np.full((8, 8, 3), 40 * i + len(part), np.uint8))
            image.save(tmp_path / "more" / part / "ab"[i % 2] / f"{i}.png")
    config = config_of("evaluation.samples={_target_: tlx.datasets.image_folder, root: more}")

    def stop(row: Mapping[str, Any]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.run(config, tmp_path / "run", command="", watch=stop)
    shutil.rmtree(tmp_path / "more")
    capsys.readouterr()
    assert main(["resume", "run"]) == 2
    assert capsys.readouterr().err == "tlx: dataset.root=more: no such folder\n"


def test_transforms_within_transforms_are_made_and_sizes_in_lists_are_shares() -> None:
    flip = "{_target_: torchvision.transforms.v2.RandomHorizontalFlip, p: 1}"
    apply = f"{{_target_: torchvision.transforms.v2.RandomApply, transforms: [{flip}], p: 1}}"
    resize = "{_target_: torchvision.transforms.v2.Resize, size: [112/224, 224/224]}"
    within, sized = components.transforms(config_of(f"augmentation.transforms=[{apply}, {resize}]"), 64)
    assert within.transforms[0].p == 1
    assert sized.size == [32, 64]
    assert math.isclose(late(1.0, 3), 1)

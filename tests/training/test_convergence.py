"""Training that is long enough: what strategies give the new layers, and what is said of a run that ended too early."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

import tlx
from tests.config.test_compose import NEEDS, config_of
from tlx.config.compose import choices
from tlx.config.identity import from_tree
from tlx.config.schema import Config
from tlx.core.errors import RequestError
from tlx.training.convergence import not_converged
from tlx.training.phase_length import lengthened

SMALL = ["backbone=small_cnn", "backbone.input_size=32", "dataset.train=8", "dataset.test=4"]


def verdict(rows: list[dict[str, Any]], config: Config, classes: int) -> str:
    return not_converged(rows, config.strategy.phases, config.training.label_smoothing, classes)


def rows(*losses: tuple[float, float], phase: str = "probe") -> list[dict[str, Any]]:
    """Epochs of (training loss, validation loss)."""
    return [
        {"phase": phase, "epoch": number, "train_loss": train, "val_loss": val, "val_accuracy": number / 100}
        for number, (train, val) in enumerate(losses, 1)
    ]


@pytest.mark.parametrize(
    ("losses", "classes", "words", "why"),
    [
        ([(0.3, 0.5), (0.2, 0.4)], 2, [], "the validation loss was still falling in the last epoch"),
        ([(0.3, 0.5)], 2, [], "the validation loss was still falling in the last epoch"),
        ([(0.3, 0.4), (0.2, 0.399)], 2, [], ""),  # it falls by a hair
        ([(0.3, 0.4), (0.2, 0.5)], 2, [], ""),  # an earlier epoch is the best
        ([(0.6, 0.5), (0.5, 0.5)], 2, [], "the training loss is 0.5, that of guessing 0.693"),
        ([(0.6, 0.5), (0.5, 0.5)], 10, [], ""),
        ([(2.0, 2.0), (1.5, 2.1)], 10, [], "the training loss is 1.5, that of guessing 2.3"),
        ([(2.0, 2.0), (1.2, 2.1)], 10, ["training.label_smoothing=0.1"], ""),  # as low as half the way
        ([(0.3, 0.5), (0.2, 0.4)], 2, ["training.epochs=9"], ""),  # patience has ended it
        ([(2e-5, 2e-5), (1e-5, 1e-5)], 2, [], ""),  # nothing is left to gain
        ([(0.005, 0.006)], 2, [], ""),
        ([(0.33, 0.34), (0.32, 0.33)], 2, ["training.label_smoothing=0.2"], ""),  # it cannot be below 0.325
    ],
)
def test_a_run_that_ended_too_early_is_known_by_its_losses(
    losses: list[tuple[float, float]], classes: int, words: list[str], why: str
) -> None:
    config = config_of(*(words if "training.epochs=9" in words else [*words, f"training.epochs={len(losses)}"]))
    line = f"not converged: train longer, for example with strategy.phases.probe.epochs={2 * len(losses)} ({why})"
    assert verdict(rows(*losses), config, classes) == (line if why else "")


def test_it_says_since_when_the_accuracy_has_not_risen() -> None:
    config = config_of("training.epochs=3")
    falling = rows((0.5, 0.6), (0.4, 0.5), (0.3, 0.4))
    for epoch, accuracy in zip(falling, (0.8, 0.9, 0.9), strict=True):
        epoch["val_accuracy"] = accuracy
    assert verdict(falling, config, 2).endswith(
        "(the validation loss was still falling in the last epoch; the validation accuracy has not risen since epoch 2)"
    )
    falling[-1]["val_accuracy"] = 0.95
    assert verdict(falling, config, 2).endswith("(the validation loss was still falling in the last epoch)")


def test_where_patience_ended_a_run_more_patience_is_proposed() -> None:
    config = config_of("training.patience=3", "training.epochs=9")
    assert verdict(rows((0.7, 0.7), (0.69, 0.71), (0.68, 0.71), (0.68, 0.71)), config, 2) == (
        "not converged: train longer, for example with strategy.phases.probe.patience=6 "
        "(the training loss is 0.68, that of guessing 0.693)"
    )


def test_where_the_loss_is_above_that_of_guessing_a_lower_rate_is_proposed_too() -> None:
    config = config_of("training.lr=0.1", "training.epochs=2")
    assert verdict(rows((3.0, 1.0), (1.7, 1.1)), config, 2) == (
        "not converged: train longer, for example with strategy.phases.probe.epochs=4, "
        "or at a lower rate, for example with strategy.phases.probe.lr=0.01 "
        "(the training loss is 1.7, that of guessing 0.693)"
    )


def test_the_last_phase_counts() -> None:
    config = config_of("strategy=lp_ft", "training.epochs=2", "strategy.phases.tune.epochs=3")
    probe = rows((0.3, 0.5), (0.2, 0.3))
    done = rows((0.1, 0.2), (0.1, 0.19), (0.1, 0.195), phase="tune")
    assert verdict([*probe, *done], config, 2) == ""
    going = rows((0.1, 0.3), (0.1, 0.2), (0.1, 0.1), phase="tune")
    assert "strategy.phases.tune.epochs=6" in verdict([*probe, *going], config, 2)


def test_a_run_says_that_it_ended_too_early_and_the_option_named_mends_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*SMALL, f"output={tmp_path}", "tracking=none", "dataset.train=20"]
    short = tlx.run([*words, "training.epochs=1"])
    line = "not converged: train longer, for example with strategy.phases.probe.epochs=2 ("
    assert short.not_converged.startswith(line)
    assert json.loads((short.folder / "summary.json").read_text())["not_converged"] == short.not_converged
    assert [said.startswith(line) for said in capsys.readouterr().err.splitlines() if "converged" in said] == [True]
    assert line in (short.folder / "tlx.log").read_text()
    long = tlx.run([*words, "training.epochs=1", "strategy.phases.probe.epochs=300", "training.patience=10"])
    assert long.not_converged == ""
    assert "converged" not in capsys.readouterr().err


# What each preset has published, phase by phase: first stage, rate, epochs, batch, optimizer.
PUBLISHED: dict[str, list[tuple[Any, ...]]] = {
    "alexnet_ants_bees": [("classifier", 1e-3, 10, 32, "SGD")],
    "vgg16_ants_bees": [("classifier", 1e-3, 10, 32, "SGD")],
    "cifar10_resnet18": [("classifier", 1e-3, 5, 64, "Adam")],
    "cifar10_resnet18_finetune": [("last", 1e-4, 5, 64, "Adam")],
    "leaves_to_shoes": [("all", 1e-3, 10, 8, "NAdam"), ("all", 1e-5, 10, 8, "Adam")],
    "resnet50_mlp_head": [("classifier", 0.01, 10, 32, "SGD")],
    "shapes_transfer": [("classifier", 1e-3, 10, 32, "Adam")],
}


@pytest.mark.parametrize(
    ("images", "words", "epochs"),
    [
        (80, [], 4),  # three steps an epoch
        (80, ["training.min_steps=12"], 4),
        (80, ["training.min_steps=13"], 5),
        (1, ["training.min_steps=13"], 13),
        (80, ["training.min_steps=100", "training.batch_size=80"], 100),
        (100_000, ["training.min_steps=100"], 4),
        (80, ["training.min_steps=100", "strategy.phases.probe.min_steps=0"], 4),
        (80, ["strategy.phases.probe.min_steps=100"], 34),
    ],
)
def test_a_phase_of_few_images_has_its_steps_all_the_same(images: int, words: list[str], epochs: int) -> None:
    phases = config_of("training.epochs=4", *words).strategy.phases
    assert lengthened(phases, images)["probe"] == dataclasses.replace(phases["probe"], epochs=epochs)


def test_a_run_with_a_minimum_of_steps_is_the_one_with_as_many_epochs(tmp_path: Path) -> None:
    words = [*SMALL, "tracking=none", "training.batch_size=8", f"output={tmp_path}"]
    few = tlx.run([*words, "training.epochs=1", "training.min_steps=7"])
    many = tlx.run([*words, "training.epochs=3"])
    assert few.epochs == many.epochs == 3  # 19 images: three steps an epoch
    assert few.test_loss == many.test_loss
    (phase,) = json.loads((few.folder / "plan.json").read_text())
    assert (phase["epochs"], phase["min_steps"]) == (3, 7)
    assert few.identity != many.identity


@pytest.mark.parametrize("preset", choices("experiment"))
def test_presets_train_as_they_were_published(preset: str) -> None:
    config = config_of(f"experiment={preset}", *NEEDS.get(("experiment", preset), []))
    found = []
    for phase in config.strategy.phases.values():
        assert (phase.train_to, phase.learns, phase.statistics, phase.lr_decay) == (None, ["all"], "learning", 1.0)
        assert phase.schedule["_target_"] == "tlx.schedules.constant"
        assert phase.min_steps == 0
        optimizer = phase.optimizer["_target_"].rpartition(".")[2]
        found.append((phase.train_from, phase.lr, phase.epochs, phase.batch_size, optimizer))
    assert found == PUBLISHED[preset]


def test_finetune_starts_from_what_feature_extraction_ends_with(tmp_path: Path) -> None:
    """However few epochs are typed for it: those are of the phase that goes deeper."""

    def epochs(*words: str) -> list[dict[str, Any]]:
        run = tlx.run([*SMALL, f"output={tmp_path}", "tracking=none", *words])
        lines = (run.folder / "metrics.jsonl").read_text().splitlines()
        return [{k: v for k, v in json.loads(line).items() if "second" not in k} for line in lines]

    probe, tuned = epochs("strategy=feature_extraction"), epochs("strategy=finetune", "training.epochs=2")
    assert [row["phase"] for row in tuned] == ["probe"] * 10 + ["tune"] * 2
    assert tuned[:10] == probe
    assert tuned[10]["train_loss"] < probe[0]["train_loss"]


def test_a_phase_that_is_null_is_left_out() -> None:
    config = config_of("strategy=finetune", "strategy.phases.probe=null")
    assert list(config.strategy.phases) == ["tune"]
    assert list(from_tree(dataclasses.asdict(config)).strategy.phases) == ["tune"]
    before = config_of("strategy=lp_ft", "strategy.phases.probe=null")
    assert list(before.strategy.phases) == ["tune"]
    assert list(config_of("source=shapes", "backbone=small_cnn").source.strategy.phases) == ["train"]
    with pytest.raises(RequestError, match=r"strategy\.phases: a strategy needs at least one phase"):
        config_of("strategy=feature_extraction", "strategy.phases.probe=null")

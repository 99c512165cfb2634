"""A learning rate that is found: the run is that of the rate, and nothing of it is moved by the looking."""

import dataclasses
import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.config.test_compose import config_of
from tests.training.test_strategies import built, images
from tlx.cli.main import main
from tlx.core.errors import RequestError
from tlx.features.batches import CachedRows
from tlx.runs import run
from tlx.training import phase_plan
from tlx.training.range_test import FIRST, HIGHEST, LOWEST, STEPS, chosen, range_test

SMALL = ["backbone=small_cnn", "backbone.input_size=16", "dataset.train=24", "dataset.test=6", "tracking=none"]
SMALL += ["strategy=finetune", "strategy.phases.probe.epochs=2", "training.epochs=2", "runtime.precision=fp32"]


def weights(folder: Path) -> bytes:
    return (folder / "model" / "model.safetensors").read_bytes()


def test_a_run_that_finds_its_rates_is_the_run_at_these_rates_and_resumes_to_the_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    both = [f"strategy.phases.{name}.lr=auto" for name in ("probe", "tune")]
    config = config_of(*SMALL, *both, "training.lr_factor=0.5", "augmentation=flip", "recipe=ema")
    with caplog.at_level("INFO"):
        found = run.run(config, tmp_path / "found", command="")
    rates = {name: found.learning_rates[name]["lr"] for name in ("probe", "tune")}
    assert all(
        f"phase {name}: learning rate {lr:g}, times training.lr_factor=0.5" in caplog.text for name, lr in rates.items()
    )
    typed = [f"strategy.phases.{name}.lr={lr}" for name, lr in rates.items()]
    config_typed = config_of(*SMALL, *typed, "training.lr_factor=0.5", "augmentation=flip", "recipe=ema")
    run.run(config_typed, tmp_path / "typed", command="")
    assert weights(tmp_path / "found") == weights(tmp_path / "typed")
    plans = [json.loads((tmp_path / name / "plan.json").read_text()) for name in ("found", "typed")]
    assert plans[0] == plans[1]
    assert all((tmp_path / "found" / f"learning_rate-{name}.png").is_file() for name in rates)
    assert (tmp_path / "found" / "report.html").read_text().count("learning rate</text>") == 2

    def stop(row: object) -> None:
        if row["phase"] == "tune":  # type: ignore[index]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.run(config, tmp_path / "cut", command="", watch=stop)
    assert main(["resume", "cut"]) == 0
    assert weights(tmp_path / "cut") == weights(tmp_path / "found")
    assert json.loads((tmp_path / "cut" / "plan.json").read_text()) == plans[0]


@pytest.mark.parametrize(("strategy", "name"), [("lp_ft", "resnet"), ("lora", "small_cnn")])
def test_neither_the_network_nor_any_generator_moves(strategy: str, name: str) -> None:
    net, config = built(strategy, name)
    phase = dataclasses.replace(config.strategy.phases["tune"], lr="auto", batch_size=5)
    at = dataclasses.replace(phase, lr=HIGHEST)
    plan = phase_plan.plan(net, "tune", at, classifier=net.layout.classifier, fine=net.fine)
    pixels, labels = images(config.backbone.input_size or 0)
    with torch.no_grad():
        rows = CachedRows([net[: plan.cut].eval()(pixels)], labels)
    before = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    kept = torch.random.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[union-attr]
    found = [range_test(net, plan, phase, rows, config, "fp32") for _ in range(2)]
    assert found[0] == found[1]
    assert all(torch.equal(before[key], tensor) for key, tensor in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())
    assert torch.equal(kept[0], torch.random.get_rng_state())
    assert kept[1:] == (random.getstate(), np.random.get_state()[1].tolist())  # type: ignore[union-attr]
    assert found[0].rates[0] == pytest.approx(LOWEST)
    assert STEPS // 4 <= len(found[0].rates) <= STEPS


def test_the_rate_is_a_tenth_of_that_at_which_the_loss_diverges() -> None:
    rates = list(np.geomspace(LOWEST, HIGHEST, STEPS))
    rng = np.random.default_rng(0)
    for point in (1e-3, 1e-1):
        losses = [1 + 0.05 * rng.normal() + (0.5 if rate > point else 0) for rate in rates]
        assert chosen(rates, losses, 0.7, "training.lr").lr == pytest.approx(point / 10, rel=0.6)
    falls = [1 - 0.9 / (1 + 1e-4 / rate) for rate in rates]  # three quarters are done at three times 1e-4
    assert chosen(rates, falls, 0.7, "training.lr").lr == pytest.approx(3e-4, rel=0.3)
    assert chosen(rates, [1.0] * STEPS, 0.7, "training.lr").lr == pytest.approx(HIGHEST / 10)
    with pytest.raises(RequestError, match=r"training.lr=auto: no rate can be found, its solver reports no steps"):
        chosen([], [], 0.7, "training.lr")
    with pytest.raises(RequestError, match="the loss is"):
        chosen(rates[:FIRST], [1.0] * FIRST, 0.7, "training.lr")


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("training.lr=aut", r"training.lr=aut: must be a number, or auto \(did you mean 'auto'\?\)"),
        ("training.lr=null", "training.lr=null: needs a value, a number or auto"),
        ("training.lr=true", "training.lr=True: must be a number, or auto"),
        ("strategy.phases.probe.lr=0", "strategy.phases.probe.lr=0.0: must be more than 0, or auto"),
    ],
)
def test_a_rate_that_is_none_is_refused(word: str, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        config_of(word)


def test_a_whole_number_is_the_rate_that_it_was(tmp_path: Path) -> None:
    assert config_of("training.lr=1") == config_of("training.lr=1.0")
    assert isinstance(config_of("training.lr=1").training.lr, float)

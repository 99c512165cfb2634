"""Averaged weights: the model is the average of the weights that training had, and training does not notice."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.training.test_strategies import RUN, built, images, train
from tlx.core.errors import RequestError
from tlx.training import checkpoint, phase_plan
from tlx.training.train_state import TrainState

EPOCHS = 4


def trained(name: str, *words: str, batch: int = 12) -> tuple[list[dict[str, Tensor]], Any]:
    """What a network is after each epoch of one phase that trains all layers and statistics; and the network."""
    net, config = built("scratch", name, *words)
    for phase in config.strategy.phases.values():
        phase.epochs, phase.batch_size = EPOCHS, batch
    found = list[dict[str, Tensor]]()

    def keep(state: TrainState, plan: phase_plan.Plan) -> None:
        found.append({key: tensor.clone() for key, tensor in net.state_dict().items()})

    train(net, config, TrainState(), keep)
    return found, net


def test_the_mean_of_the_last_epochs_is_that_of_the_weights_of_a_run_without_it() -> None:
    plain, net = trained("resnet", batch=5)
    averaged, _ = trained("resnet", "recipe=average_last", "training.average_last=2", batch=5)
    names = dict(net.named_parameters())
    assert all(torch.equal(averaged[1][key], plain[1][key]) for key in plain[0])
    for key in names:
        torch.testing.assert_close(averaged[3][key], (plain[2][key] + plain[3][key]) / 2)


def test_the_moving_average_is_that_of_the_steps_and_statistics_are_those_of_the_averaged_weights() -> None:
    plain, net = trained("resnet")  # an epoch is a step
    averaged, _ = trained("resnet", "recipe=ema", "training.ema=0.15")
    weights = [dict(net.named_parameters())]
    for key in weights[0]:
        mean = plain[0][key]
        for n in range(1, EPOCHS):
            decay = min(0.15, (1 + n) / (10 + n))
            mean = decay * mean + (1 - decay) * plain[n][key]
            torch.testing.assert_close(averaged[n][key], mean)
    model = copy.deepcopy(net)
    model.load_state_dict(averaged[-1])
    for norm in [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]:
        norm.reset_running_stats()
        norm.momentum = None
    with torch.no_grad():
        model.train()(images(32)[0])
    for key, buffer in model.named_buffers():
        if "running" in key:
            torch.testing.assert_close(averaged[-1][key], buffer)


@pytest.mark.parametrize(("strategy", "words"), [("lp_ft", "recipe=ema"), ("lora", "training.average_last=2")])
def test_a_run_that_goes_on_comes_to_the_same_bits_and_what_is_frozen_stays(
    tmp_path: Path, strategy: str, words: str
) -> None:
    net, config = built(strategy, "resnet", words)
    start = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    folders = list[Path]()

    def keep(state: TrainState, plan: phase_plan.Plan) -> None:
        moving = {*plan.learning, *(key for key in start if key.startswith(tuple(f"{n}." for n in plan.adapting)))}
        before = {key: tensor.clone() for key, tensor in net.state_dict().items()} if len(folders) == 0 else start
        if plan.phase == "probe":
            assert all(torch.equal(before[key], start[key]) for key in start if key not in moving)
        folders.append(tmp_path / str(len(folders)))
        folders[-1].mkdir()
        checkpoint.Keeper(folders[-1]).keep(RUN, net, state)

    whole = train(net, config, TrainState(), keep)
    for folder in folders:
        again, config = built(strategy, "resnet", words)
        state = TrainState()
        checkpoint.load(folder, checkpoint.read(folder), again, state)
        found = train(again, config, state, lambda *_: None)
        assert all(torch.equal(found[key], whole[key]) for key in whole), folder.name


def test_two_averages_are_refused() -> None:
    with pytest.raises(RequestError, match=r"leave out one of them"):
        built("scratch", "resnet", "recipe=[ema,average_last]")

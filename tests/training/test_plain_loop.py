"""Training of all layers gives what the loop that a user writes gives, up to rounding."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from tests.config.test_compose import config_of
from tlx.core.seeding import seed_all
from tlx.core.stopwatch import Clock
from tlx.features.batches import shuffled
from tlx.runs.build_features import features_of
from tlx.runs.prepare import prepare
from tlx.training import trainer
from tlx.training.progress import Progress

SMALL = [
    *("dataset.train=12", "dataset.test=4", "dataset.size=32", "training.batch_size=4", "features.store=0"),
    *("backbone=timm", "backbone.weights=none", "backbone.input_size=32", "optimizer=sgd"),
]


def test_full_training_is_the_plain_loops_up_to_rounding() -> None:
    full = ("strategy=full", "strategy.phases.tune.lr_decay=1", "training.epochs=2", "runtime.precision=fp32")
    config = config_of(*SMALL, "backbone.name=resnet10t", *full)
    job = prepare(config, Clock())
    ((phase_name, phase),) = config.strategy.phases.items()
    features = features_of(job)
    usual = deepcopy(job.net).to(memory_format=torch.contiguous_format).train()
    before = {key: tensor.clone() for key, tensor in usual.state_dict().items()}
    losses = [
        row["train_loss"]
        for row in trainer.train(job.net, job.plans[phase_name], phase, features, config, Progress(), last=2)
    ]

    arguments = {key: value for key, value in phase.optimizer.items() if key != "_target_"}
    optimizer = torch.optim.SGD(usual.parameters(), **{**arguments, "lr": phase.lr})
    rows, expected = features.rows(job.net, 0, "train"), []
    for epoch in range(2):
        seed_all(config.seed, phase_name, epoch)
        total = 0.0
        order = shuffled(len(rows.y), 4, torch.Generator().manual_seed(torch.initial_seed()))
        for x, y in rows.batches(order, epoch):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(usual(x), y)
            loss.backward()
            optimizer.step()
            total += loss.item() * len(y)
        expected.append(total / len(rows.y))

    assert losses == pytest.approx(expected, rel=1e-3)
    moved = 0.0
    for key, tensor in job.net.state_dict().items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor, usual.state_dict()[key], rtol=1e-2, atol=1e-4)
            moved = max(moved, float((tensor - before[key]).abs().max()))
    assert moved > 1e-3

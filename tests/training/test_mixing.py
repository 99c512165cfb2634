"""Mixed images: labels go with them through every loss, frozen stages see what was mixed, and draws need no state."""

import json
from pathlib import Path

import pytest
import torch
from torch.nn import functional

import tlx
from tests.training.test_weighted_loss import NODES, Y
from tlx.cli.main import main
from tlx.config.compose import compose, without_hydra
from tlx.config.schema import Training
from tlx.config.validation import checked
from tlx.core.errors import RequestError
from tlx.features.batches import CachedRows
from tlx.features.mixed_rows import Mixed
from tlx.runs import run
from tlx.training.mixing import mixing_for
from tlx.training.weighted_loss import class_weights, loss_for

MIXUP = {"_target_": "torchvision.transforms.v2.MixUp", "alpha": 1.0}
CUTMIX = {"_target_": "torchvision.transforms.v2.CutMix", "alpha": 1.0}
BOTH = {"_target_": "torchvision.transforms.v2.RandomChoice", "transforms": [MIXUP, CUTMIX]}
SMALL = ["backbone=small_cnn", "backbone.input_size=16", "dataset.train=12", "dataset.test=6", "tracking=none"]
SMALL += ["training.epochs=2", "training.batch_size=8"]


@pytest.mark.parametrize("name", NODES)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [None, "balanced"])
def test_the_loss_of_a_mixed_image_is_the_mean_of_those_of_its_labels(
    name: str, smoothing: float, weights: str | None
) -> None:
    if (name == "focal" and smoothing) or (name == "logit_adjusted" and weights):
        return  # refused
    training = Training(label_smoothing=smoothing, class_weights=weights)
    loss = loss_for(NODES[name], training, Y)
    draw = torch.Generator().manual_seed(0)
    logits, one, two = torch.randn(20, 3, generator=draw), Y, Y.roll(7)
    share = torch.rand(20, generator=draw)
    shares = share[:, None] * functional.one_hot(one, 3) + (1 - share[:, None]) * functional.one_hot(two, 3)
    expected = sum(
        s * loss(z[None], a[None]) + (1 - s) * loss(z[None], b[None])
        for s, z, a, b in zip(share, logits, one, two, strict=True)
    )
    torch.testing.assert_close(loss(logits, shares), torch.as_tensor(expected))
    torch.testing.assert_close(loss(logits, functional.one_hot(one, 3).float()), loss(logits, one))
    if name == "cross_entropy" and class_weights(Y, weights) is None:
        torchs = functional.cross_entropy(logits, shares, reduction="sum", label_smoothing=smoothing)
        torch.testing.assert_close(loss(logits, shares), torchs)


@pytest.mark.parametrize("node", [MIXUP, CUTMIX, BOTH])
def test_draws_come_from_seed_epoch_and_batch_alone_and_labels_fit_the_pixels(node: dict[str, object]) -> None:
    labels = torch.arange(6)
    pixels = labels.to(torch.uint8)[:, None, None, None].expand(6, 3, 8, 8)  # of the value of their label
    order = [torch.tensor([0, 3, 1]), torch.tensor([5, 2, 4])]
    rows = Mixed(CachedRows([pixels], labels), mixing_for(node), seed=1)
    before = torch.random.get_rng_state()
    found = list(rows.batches(order, 4))
    assert torch.equal(before, torch.random.get_rng_state())
    torch.rand(3)
    for (x, y), (again, shares) in zip(found, rows.batches(order, 4), strict=True):
        assert torch.equal(x, again)
        assert torch.equal(y, shares)
        torch.testing.assert_close(x.mean((1, 2, 3)), y @ labels.float())
    assert any(not torch.equal(x, other) for (x, _), (other, _) in zip(found, rows.batches(order, 5), strict=True))


def test_features_are_mixed_as_pixels_are() -> None:
    x, labels = torch.arange(8.0)[:, None] * torch.ones(8, 5), torch.arange(8)
    ((mixed, y),) = Mixed(CachedRows([x], labels), mixing_for(MIXUP), seed=0).batches([labels], 0)
    torch.testing.assert_close(mixed.mean(1), y @ labels.float())


def test_pixels_are_mixed_before_frozen_stages_which_is_said_and_runs_resume_to_the_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [*SMALL, "recipe=mixup", "training.mixing.alpha=1", "augmentation=flip"]
    config = checked(without_hydra(compose(words)))
    with caplog.at_level("INFO"):
        run.run(config, tmp_path / "whole", command="")
    assert "fc input, train, computed anew for each batch (training.mixing mixes the pixels; " in caplog.text

    def stop(row: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.run(config, tmp_path / "cut", command="", watch=stop)
    assert main(["resume", "cut"]) == 0
    weights = [(tmp_path / name / "model/model.safetensors").read_bytes() for name in ("whole", "cut")]
    assert weights[0] == weights[1]
    folders = [tlx.run([*SMALL, *more]).folder for more in ([], ["recipe=mixup_features"])]
    first = [json.loads((folder / "metrics.jsonl").read_text().splitlines()[0]) for folder in folders]
    assert first[0]["train_loss"] != first[1]["train_loss"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["training.mixing=mixup"], "training.mixing=mixup: needs a _target_"),
        (
            ["recipe=mixup", "training.mixing.alpha=-1"],
            "torchvision.transforms.v2.MixUp does not take",
        ),
        (["training.mixing={_target_: torchvision.transforms.v2.MixUp, alhpa: 1}"], "did you mean 'alpha'"),
        (["training.mixing={_target_: builtins.dict}"], "training.mixing: builtins.dict "),
        (["recipe=mixup", "training.mix_at=feature"], "did you mean 'features'"),
    ],
)
def test_what_cannot_mix_is_refused(words: list[str], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        tlx.run([*SMALL, *words])

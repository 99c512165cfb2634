"""Recorded training steps: what repeats a step trains as the step does, and what cannot be repeated is not."""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from tests.training.test_trainer import NETWORKS, trained
from tlx.config.schema import Training
from tlx.training import solvers
from tlx.training.cuda_graphs import STEPS, Gradients, recorder_for
from tlx.training.solvers import backward


class _Tape(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """What a GPU's graph is, on a processor: operations on memory that stays where it is, done again in order."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.done: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.done.append((func, args, kwargs or {}, result))
        return result

    def again(self) -> None:
        with torch.no_grad():
            for func, args, kwargs, there in self.done:
                made = func(*args, **kwargs)
                each = zip(*((x,) if isinstance(x, Tensor) else x for x in (there, made)), strict=True)
                for place, value in each if made is not None else ():
                    if isinstance(place, Tensor) and place.data_ptr() != value.data_ptr():
                        place.copy_(value)


class Tapes:
    """A recorder of tapes."""

    def __init__(self, *, fits: bool = True, fails: Exception | None = None, wrong: float = 1.0) -> None:
        self.small, self.fails, self.wrong = fits, fails, wrong
        self.spoil: Callable[[], object] = lambda: None
        self.repeated = self.called = 0

    def fits(self, function: Callable[[], object]) -> bool:
        function()
        return self.small

    def record(self, function: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], None]]:
        with _Tape() as tape:
            result = function()
        if self.fails:
            raise self.fails

        def repeat() -> None:
            self.repeated += 1
            tape.again()
            result.mul_(self.wrong)
            self.spoil()

        return result, repeat


@pytest.mark.parametrize(("network", "choice"), [("small_cnn", "gradual"), ("resnet", "full"), ("vit", "finetune")])
def test_recorded_steps_train_as_steps_do(network: str, choice: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dropout, statistics that adapt, an odd last batch, several phases, clipping and micro-batches among it."""
    typed = [
        *NETWORKS[network], f"strategy={choice}", "head=mlp", "training.epochs=4", "training.clip_norm=1",
        "training.accumulate=2", "training.class_weights=balanced", "training.label_smoothing=0.1", "dataset.train=9",
    ]  # fmt: skip
    plain = trained(*typed)
    tapes = Tapes()
    monkeypatch.setattr(solvers, "recorder_for", lambda device, steps: tapes)
    recorded = trained(*typed)
    assert tapes.repeated > 4
    assert recorded[0] == plain[0]
    for name, tensor in plain[1].items():
        assert torch.equal(recorded[1][name], tensor), name


REFUSED = RuntimeError("operation not permitted when stream is capturing")


@pytest.mark.parametrize(
    "tapes",
    [
        *(Tapes(fits=False), Tapes(fails=REFUSED), Tapes(fails=AssertionError())),
        *(Tapes(wrong=1.2), Tapes(wrong=float("nan"))),
    ],
)
def test_what_cannot_be_repeated_is_computed(tapes: Tapes, monkeypatch: pytest.MonkeyPatch) -> None:
    typed = [*NETWORKS["small_cnn"], "strategy=scratch", "head=mlp", "training.epochs=3"]
    plain = trained(*typed)
    monkeypatch.setattr(solvers, "recorder_for", lambda device, steps: tapes)
    recorded = trained(*typed)
    assert tapes.repeated <= 1
    assert recorded[0] == plain[0]
    assert all(torch.equal(recorded[1][name], tensor) for name, tensor in plain[1].items())


def tail() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 2))


def test_gradients_are_those_of_one_batch() -> None:
    """Batches of other sizes between the repeated ones have gradients of their own."""
    batches = [(torch.randn(n, 4), torch.randint(2, (n,))) for n in (6, 6, 6, 3, 6, 3, 6)]
    found = []
    for recorder in (None, Tapes()):
        net, calls = tail().train(), 0

        def compute(x: Tensor, y: Tensor, net: nn.Module = net) -> Tensor:
            nonlocal calls
            calls += 1
            return backward(net, x, y, None, Training(), "fp32")

        gradients = Gradients(compute, net, list(net.parameters()), recorder)
        torch.manual_seed(1)
        each = []
        for x, y in batches:
            loss = gradients(x, y).clone()
            each.append([loss, *(p.grad.clone() for p in net.parameters() if p.grad is not None)])
        found.append((each, [b.clone() for b in net.buffers()], torch.rand(3)))
        assert calls == (
            len(batches) if recorder is None else 6
        )  # 6 | tried, expected, recorded | 3 | 3 … and the first
    (plain, statistics, drawn), (recorded, statistics_of_recorded, drawn_then) = found
    for a, b in zip(plain, recorded, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(statistics, statistics_of_recorded, strict=True))
    assert torch.equal(drawn, drawn_then)


@pytest.mark.parametrize("sign", [0, -1, 0.9])
def test_gradients_that_differ_are_found_however_small_they_are(sign: float) -> None:
    net, tapes = tail().train(), Tapes()
    gradients = Gradients(
        lambda x, y: backward(net, 1e-3 * x, y, None, Training(), "fp32"), net, [net[0].weight], tapes
    )

    def spoil() -> None:
        assert isinstance(net[0].weight.grad, Tensor)
        net[0].weight.grad.mul_(sign)

    tapes.spoil = spoil
    x, y = torch.randn(6, 4), torch.randint(2, (6,))
    for _ in range(4):
        gradients(x, y)
    assert tapes.repeated == 1
    assert gradients.recorder is None


@pytest.mark.parametrize("draw", [random.random, np.random.rand])
def test_steps_for_which_the_host_draws_are_not_repeated(draw: Callable[[], float]) -> None:
    net, tapes, drawn = tail().train(), Tapes(), []

    def compute(x: Tensor, y: Tensor) -> Tensor:
        drawn.append(draw())
        return backward(net, x, y, None, Training(), "fp32")

    gradients = Gradients(compute, net, list(net.parameters()), tapes)
    for _ in range(3):
        gradients(torch.zeros(6, 4), torch.zeros(6, dtype=torch.int64))
    assert tapes.repeated == 0
    assert len(set(drawn)) == 3, "what was tried has moved the draws"


def test_a_processor_records_nothing() -> None:
    assert recorder_for(torch.device("cpu"), 10 * STEPS) is None


def test_a_gpu_records_what_a_processor_would_compute() -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    device = torch.device("cuda")
    assert recorder_for(device, STEPS - 1) is None
    recorder = recorder_for(device, STEPS)
    net, like = (tail().to(device).train() for _ in range(2))
    gradients, calls = {}, [0]

    def compute(net: nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
        def of(x: Tensor, y: Tensor) -> Tensor:
            calls[0] += net is like
            return backward(net, x, y, None, Training(), "fp32")

        return of

    for one, how in ((net, None), (like, recorder)):
        gradients[one] = Gradients(compute(one), one, list(one.parameters()), how)
    for step, n in enumerate((6, 6, 6, 3, 6, 6)):
        x, y = torch.randn(n, 4, device=device), torch.randint(2, (n,), device=device)
        losses = []
        for one in (net, like):
            torch.manual_seed(step)  # of dropout
            losses.append(gradients[one](x, y).clone())
        torch.testing.assert_close(*losses)
        torch.testing.assert_close(net[1].running_mean, like[1].running_mean)
        for a, b in zip(net.parameters(), like.parameters(), strict=True):
            torch.testing.assert_close(a.grad, b.grad)
    assert calls[0] < 10
    like[1].momentum = None  # then a BatchNorm asks the device how many batches it has seen
    unfit = Gradients(compute(like), like, list(like.parameters()), recorder)
    for _ in range(3):
        unfit(x, y)
    assert unfit.recorder is None
    assert torch.isfinite(torch.rand(3, device=device)).all(), "what failed has left the generator in its hands"

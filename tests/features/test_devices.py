"""What a GPU would do, checked without one: torch's fake tensors know shape, format and device, and have no values.

An operation on tensors of two devices raises, as it would there; where a value is requested, a GPU would be waited for.
"""

import re
import traceback
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torchvision.transforms.v2 import functional

from tlx.config.schema import Phase, Training
from tlx.datasets.image_sources import Stacked
from tlx.datasets.images import Images
from tlx.datasets.preprocessing import Normalize, Preprocessing
from tlx.features import batches as rows
from tlx.features.batches import CachedRows, Pixels, Through
from tlx.features.feature_rows import Task, made_rows, outline
from tlx.features.frozen_forward import Forward, rows_per_pass
from tlx.features.graph_tracing import _Recorder
from tlx.training import phase_plan, trainer
from tlx.training.solver_context import SolverContext

GPU, CPU = torch.device("cuda:0"), torch.device("cpu")
IMAGES = 52
COMPARED = ["difference, allowed"] * 2  # the graph of a frozen part with its modules, in its first pass


class Waits(list[str]):
    """The lines that requested a value, and each backward pass."""

    learning: Sequence[nn.Parameter] = ()

    def value(self) -> float:
        self.append(str(traceback.extract_stack()[-3].line))
        return 0.5

    def backward(self, loss: Tensor) -> None:
        """torch's own wants a GPU."""
        assert loss.device == GPU
        for parameter in self.learning:
            parameter.grad = torch.ones_like(parameter)
        self.append("backward")


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> Iterator[Waits]:
    """A machine with a GPU, as far as shapes go."""
    found = Waits()
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=8e9))
    monkeypatch.setattr(Tensor, "pin_memory", Tensor.clone)
    monkeypatch.setattr(FakeTensor, "__float__", lambda _: found.value(), raising=False)
    monkeypatch.setattr(FakeTensor, "tolist", lambda self: list(range(len(self))), raising=False)
    monkeypatch.setattr(torch.autograd, "backward", found.backward)
    monkeypatch.setattr(rows, "paced", lambda batches, device: batches)  # events want a GPU
    monkeypatch.setattr(rows, "_AHEAD", 1)  # the mode below is a thread's
    record = _Recorder.__torch_dispatch__

    def dispatch(self: _Recorder, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        of_device = func is torch.ops.prim.device.default  # only tensors without values look it up so
        return GPU if of_device else record(self, func, types, args, kwargs)

    monkeypatch.setattr(_Recorder, "__torch_dispatch__", dispatch)
    with FakeTensorMode(allow_non_fake_inputs=True):
        try:
            torch.empty(1, device=GPU)[torch.tensor([0])]
        except RuntimeError:  # an older one
            pytest.skip("the fake tensors of this torch need a GPU's driver")
        yield found


def network() -> nn.Sequential:
    """resnet18's last stage and a head learn; its parameters are on the GPU."""
    with GPU:
        resnet = torchvision.models.resnet18()
        net = nn.Sequential()
        parts = (resnet.conv1, resnet.bn1, resnet.relu, resnet.maxpool, resnet.layer1, resnet.layer2, resnet.layer3)
        net.add_module("body", nn.Sequential(Normalize([0.5] * 3, [0.2] * 3), *parts))
        net.add_module("last", nn.Sequential(resnet.layer4, resnet.avgpool, nn.Flatten()))
        net.add_module("head", nn.Sequential(nn.Dropout(), nn.Linear(512, 10)))
        return net.eval()


def pixels(**values: Any) -> Pixels:
    images = Images(
        [f"{i}" for i in range(IMAGES)], np.arange(IMAGES) % 10, Stacked(np.zeros((IMAGES, 32, 32, 3), np.uint8))
    )
    return Pixels(images, Preprocessing(64, 64, None, (0.5,) * 3, (0.2,) * 3), GPU, **values)


@pytest.mark.parametrize("where", [GPU, CPU], ids=["on the GPU", "in memory"])
@pytest.mark.parametrize("cut", [1, 2])
def test_a_phase_waits_for_the_gpu_once_an_epoch(cut: int, where: torch.device, waits: Waits) -> None:
    """From pixels to a row of the log: features kept on the GPU or beside it, training, validation."""
    net, source = network(), pixels()
    forward = Forward(net[:cut], "bf16")
    task = Task(source, 0, outline(net, cut, 64, "bf16", GPU), lambda: Through(forward, source), lambda done: None)
    kept, _ = made_rows(task, None, "", {}, where)
    assert isinstance(kept, Tensor)
    assert isinstance(forward._run, fx.GraphModule), "the frozen part is not recorded"
    assert (kept.device, kept.dtype, len(kept)) == (where, torch.bfloat16, IMAGES)
    assert [line.partition(" = ")[0] for line in waits] == COMPARED
    waits.clear()
    there = CachedRows([kept], source.y, source.y.device if where == GPU else CPU)
    settings: dict[str, Any] = {
        "optimizer": {"_target_": "torch.optim.Adam"},
        "schedule": {"_target_": "tlx.schedules.cosine"},
    }
    phase = Phase(train_from=("last", "head")[cut - 1], epochs=2, lr=1e-3, batch_size=8, **settings)
    plan = phase_plan.plan(net, "tune", phase, classifier="head")
    assert plan.cut == cut
    phase_plan.prepare(net, plan)
    waits.learning = [p for p in net.parameters() if p.requires_grad]
    training = Training(accumulate=2, class_weights=None, clip_norm=1.0)
    context = SolverContext(net, plan, there, phase, training, 2, precision="bf16")
    context.state.scaled = False  # a temperature is fitted on the CPU, to values that these tensors have not
    log = list(trainer.epochs(context, there))
    assert len(log) == 2
    steps = 2 * 7  # micro-batches of an epoch
    epoch = ["backward"] * steps + waits[steps : steps + 3]
    assert waits == 2 * epoch
    figures = [re.match(r"\w+", line.lstrip('"')) for line in epoch[steps:]]  # what each of these lines computes
    assert [name and name[0] for name in figures] == ["train_loss", "val_loss", "val_accuracy"]


def test_a_frozen_part_has_its_batchnorm_folded_and_its_casts_done(waits: Waits) -> None:
    forward = Forward(network()[:2], "bf16")
    x = torch.zeros(3, 3, 64, 64, dtype=torch.uint8, device=GPU)
    made = forward(x)
    assert (made.device, made.dtype, made.shape) == (GPU, torch.bfloat16, (3, 512))
    assert rows_per_pass(GPU) == 64
    graph = forward._run
    assert isinstance(graph, fx.GraphModule)
    done = [str(node.target) for node in graph.graph.nodes if node.op == "call_function"]
    assert not [name for name in done if "batch_norm" in name]
    assert done.count("aten._to_copy.default") == 2  # of the pixels: to fp32, and to bf16
    assert [line.partition(" = ")[0] for line in waits] == COMPARED


@pytest.mark.parametrize("on", ["view", "image"])
def test_images_of_one_array_are_changed_where_they_have_grown(on: str, waits: Waits) -> None:
    def changed(image: Tensor) -> Tensor:  # as transforms do that have drawn
        part = functional.resized_crop(image, 3, 3, 20, 20, [64, 64], antialias=True)
        return functional.rotate(functional.horizontal_flip(part), 10.0)

    source = pixels(transforms=[changed], on=on, workers=2)
    assert source.loader is None
    (x, y), *_ = source.batches([torch.arange(5)], 0)
    assert (x.device, x.dtype, x.shape) == (GPU, torch.uint8, (5, 3, 64, 64))
    assert y.device == GPU

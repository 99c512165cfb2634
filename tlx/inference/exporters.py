"""What a saved model becomes in other formats: one ONNX file, a torch.export program, the original network's weights.

Each writer opens again what it wrote, so that what is compared with the saved model is the file and not what it was
made of.
"""

import dataclasses
import io
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from tlx.backbones import factories, pretrained_weights
from tlx.backbones.staged_network import misfit
from tlx.config.schema import Backbone
from tlx.core.errors import RequestError, reason
from tlx.datasets.further_views import mean_logits
from tlx.datasets.preprocessing import Normalize
from tlx.inference.deployed import Deployed, Logits
from tlx.inference.predictor import Model

__all__ = ["KEY", "NETWORK", "ExportError", "Parity", "compare", "differ", "onnx", "opened", "saved", "state_dict"]
__all__ += ["torch_export"]

TOLERANCE = 1e-3  # of a logit, between the saved network in fp32 and a file that takes what this one takes
OF_PIXELS = 1e-2  # of a probability, where the file resizes images, too: a level of a few pixels may be another one
KEY = "tlx"  # of the metadata, one JSON document, in a file's own metadata
NETWORK = "net/"
SCOPES = "pkg.torch.onnx.name_scopes"  # of a node's metadata: the modules that it is in, from the outermost on
OPSET = 20  # what torch's exporter writes without converting; onnxruntime reads it since 1.17
ONNX_BYTES = 2**31 - 1  # of one file: a protocol buffer has no more


class ExportError(Exception):
    """The model cannot be had in this format, or what was written does not predict as the saved model does."""


@dataclass(frozen=True)
class Parity:
    """How two networks compare on the same images.

    Attributes:
        images: how many.
        difference: the largest between two logits, or probabilities; NaN where one of them is no number.
        changed: images whose most probable class differs.
        of: what `difference` is of: a logit, a probability.
    """

    images: int
    difference: float
    changed: int
    of: str = "logit"

    @property
    def holds(self) -> bool:
        """Whether one may stand for the other: no class changes; or, of probabilities, none but near a tie."""
        if self.of == "probability":
            return self.difference < OF_PIXELS
        return self.difference < TOLERANCE and not self.changed  # NaN is not below anything

    @property
    def needed(self) -> str:
        """What `difference` must be below."""
        return str(OF_PIXELS if self.of == "probability" else TOLERANCE)

    def __str__(self) -> str:
        return f"largest difference of a {self.of} {self.difference:.1e}, {differ(self.changed, self.images)}"


def differ(changed: int, images: int) -> str:
    """How many images have another class, in words."""
    return f"{changed} of {images} classes differ" if changed else "same classes"


def compare(a: Tensor, b: Tensor, temperature: float | None = None) -> Parity:
    """Two networks' logits `[N, classes]` for the same images; with a temperature their probabilities."""
    changed = int((a.argmax(1) != b.argmax(1)).sum())
    if temperature is not None:
        a, b = (a / temperature).softmax(1), (b / temperature).softmax(1)
    return Parity(len(a), float((a - b).abs().max()), changed, "logit" if temperature is None else "probability")


def saved(model: Model) -> Logits:
    """The saved network in fp32: as it was measured, or where that was in 16 bit, its modules as they are."""
    if model.precision == "fp32":
        return model.logits
    seen = model.preprocessing.seen
    return lambda x: mean_logits([model.net(view) for view in seen(x.to(model.device))]).cpu()


def onnx(model: Model, path: Path, facts: Mapping[str, Any], name: str) -> Logits:
    """Writes one ONNX file (one of `INPUTS` → `outputs`) and opens it with onnxruntime.

    The names of the network's nodes begin with `NETWORK`; the others are what is before and behind it.

    Raises:
        RequestError: the weights are more than one file holds.
        ExportError: the network cannot be traced, or onnxruntime cannot open the file.
    """
    size = sum(tensor.nbytes for tensor in model.net.state_dict().values())
    if size > ONNX_BYTES:
        raise RequestError(f"--format onnx: {size / 1e9:.1f} GB of weights are more than one file holds; torch_export")
    program = _traced("ONNX", model, name, lambda graph, arguments, shapes: torch.onnx.export(
        graph, arguments, dynamic_shapes=shapes, dynamo=True, opset_version=OPSET, verbose=False,
        input_names=[name], output_names=list(graph.outputs),
    ))  # fmt: skip
    proto = program.model_proto
    for node in proto.graph.node:
        modules = next((known.value for known in node.metadata_props if known.key == SCOPES), "")
        if re.search(r"'(body|last)'", modules):
            node.name = f"{NETWORK}{node.name}"
    # The exporter notes for each node the lines of source it came from, with the folders of this machine.
    for part in (proto.graph, *proto.graph.node):
        part.ClearField("metadata_props")
    proto.metadata_props.add(key=KEY, value=json.dumps(facts, ensure_ascii=False))
    path.write_bytes(proto.SerializeToString())
    return opened(path)


def opened(path: Path) -> Logits:
    """An ONNX file, run by onnxruntime.

    Raises:
        ExportError: onnxruntime cannot open it.
    """
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = torch.get_num_threads()
    settings.log_severity_level = 3  # errors: its warnings are about how it might be faster
    try:
        session = onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no common class
        raise ExportError(f"onnxruntime cannot open what was written: {reason(error)}") from error
    (given,) = session.get_inputs()
    return lambda x: torch.from_numpy(session.run(["logits"], {given.name: x.numpy()})[0])


def torch_export(model: Model, path: Path, facts: Mapping[str, Any], name: str) -> Logits:
    """Writes a torch.export program (`.pt2`, for the CPU; one of `INPUTS`) and opens it.

    It gives what `outputs` names; the metadata is in the extra file `tlx.json`.

    Raises:
        ExportError: the network cannot be traced.
    """
    program = _traced("torch.export", model, name, lambda graph, arguments, shapes: torch.export.export(
        graph, arguments, dynamic_shapes=shapes
    ))  # fmt: skip
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # lines of source, with the folders of this machine
    content = io.BytesIO()  # torch's own writer ends the whole process when the disk is full
    torch.export.save(program, content, extra_files={f"{KEY}.json": json.dumps(facts, ensure_ascii=False)})
    path.write_bytes(content.getbuffer())
    again = torch.export.load(path).module()
    return lambda x: again(x)[0]


def state_dict(model: Model, path: Path, facts: Mapping[str, Any]) -> tuple[str, Logits | None]:
    """Writes the weights under the original network's key names: `.pth` (tensors alone), else safetensors.

    Returns:
        Into which network they load, in words; and that network with these weights, where they load strictly.

    Raises:
        ExportError: they do not fit the original network.
    """
    state = {name: tensor.contiguous() for name, tensor in model.net.original_state().items()}
    if path.suffix == ".pth":
        content = io.BytesIO()  # as above
        torch.save(state, content)
        path.write_bytes(content.getbuffer())
    else:
        try:
            save_file(state, path, {KEY: json.dumps(facts, ensure_ascii=False)})
        except SafetensorError as error:  # what it makes of a full disk
            raise OSError(str(error)) from error
    again = pretrained_weights.read(path)
    lost = [name for name in state if name not in again or not torch.equal(again[name], state[name])]
    if lost or len(again) != len(state):
        raise ExportError(f"what was written is not what was saved ({', '.join(lost[:3]) or 'more keys'})")
    return _fitted(model, again, path)


def _fitted(model: Model, state: Mapping[str, Tensor], path: Path) -> tuple[str, Logits | None]:
    """Loads `state` into the network that the library builds: with as many classes, or else with its own head."""
    backbone = Backbone(**model.description["backbone"])
    maker, name = backbone._target_.rpartition(".")[2], backbone.name
    whose = name if maker == name else f"{maker}'s {name}"
    classes = len(model.classes)
    seen = model.preprocessing
    try:
        sized = dataclasses.replace(backbone, arguments={**backbone.arguments, "num_classes": classes})
        # What the file will overwrite need not be drawn.
        original = factories.original(sized, path).model
    except RequestError:  # a network without a last layer of its own takes no number of classes
        original = None
    if original is not None and not misfit(original.state_dict(), state):
        original.load_state_dict(state, strict=True)
        return f"loads strictly into {whose} (num_classes={classes})", _normalized(original.eval(), seen.mean, seen.std)
    own = factories.original(backbone, path).model.state_dict()
    head = {model.net.original_key(key) for key in model.net.state_dict() if key.startswith("head.")}
    body = {key: value for key, value in state.items() if key not in head}
    last = f"{model.net.layout.last}."
    problem = misfit({key: value for key, value in own.items() if not key.startswith(last)}, body)
    if problem:
        raise ExportError(f"the weights do not fit {whose}: {problem}")
    return f"loads into {whose}, but for the keys of its own head: {', '.join(sorted(head))}", None


def _normalized(network: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> Logits:
    normalize = Normalize(mean, std)
    return lambda x: network(normalize(x))


def _traced(what: str, model: Model, name: str, trace: Callable[[Deployed, tuple[Tensor], Any], Any]) -> Any:
    """What `trace` makes of the model, for the input of that name."""
    graph = Deployed(model, name).eval()
    images, open_sides = graph.example()
    try:
        with torch.no_grad():
            return trace(graph, (images,), (open_sides,))
    except Exception as error:  # tracing a network that cannot be traced raises anything at all
        raise ExportError(f"{model.description['backbone']['name']} has no {what} form: {reason(error)}") from error

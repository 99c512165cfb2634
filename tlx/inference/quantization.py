"""An ONNX file in 8-bit integers: smaller, and on most processors faster; how much accuracy that costs is measured.

Which method: where most weights are in matrix products (transformers), these alone are quantized, and activations by
what each image has (dynamic). Convolutions in dynamic integers are slower than in floats: where they have the weights,
all operators are quantized (static), with the ranges of activations over training images.
"""

import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tlx.core.errors import RequestError
from tlx.datasets.image_decoding import Pixels
from tlx.inference.exporters import KEY, NETWORK, ExportError

if TYPE_CHECKING:
    from tlx.inference.deployed import Logits

CALIBRATION = 64  # training images that say the ranges of activations
PRODUCTS, CONVOLUTIONS = {"MatMul", "Gemm"}, {"Conv"}
TIMED = 30  # images whose time is taken, of which the median is said


class Quantize(NamedTuple):
    """What an export in 8-bit integers takes: `training` gives so many training images at most, and
    `difference` says in words what a number an image means: 1 where the quantized model alone is correct, -1 where
    the other alone is, else 0."""

    training: Callable[[int], Iterator[Pixels]]
    difference: Callable[[NDArray[np.int8]], str]


def quantize(source: Path, target: Path, name: str, calibration: Callable[[], list[NDArray[np.uint8]]]) -> str:
    """Writes the ONNX file `source` in 8-bit integers; by which method, in words.

    Args:
        name: of its input.
        calibration: inputs made of training images; called only where they are needed.

    Raises:
        RequestError: training images are needed, and not at hand.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic, quantize_static

    graph = onnx.load(source)
    skipped = [node.name for node in graph.graph.node if not node.name.startswith(NETWORK)]
    common: dict[str, Any] = {"nodes_to_exclude": skipped, "per_channel": True, "weight_type": QuantType.QInt8}
    if _bytes(graph, PRODUCTS) >= _bytes(graph, CONVOLUTIONS):
        with _without_advice():
            quantize_dynamic(source, target, op_types_to_quantize=sorted(PRODUCTS), **common)
        method = "dynamic, matrix products"
    else:
        given = calibration()
        if not given:
            raise RequestError(
                "--quantize: the ranges of this network's activations come from training images, and those of the run "
                "are not at hand"
            )
        with _without_advice():
            quantize_static(source, target, _reader(name, given), activation_type=QuantType.QUInt8, **common)
        method = f"static, calibrated on {len(given)} training images"
    written = onnx.load(target)
    if not any("QuantizeLinear" in node.op_type for node in written.graph.node):
        raise ExportError("--quantize: onnxruntime has quantized no operator of this network")
    (facts,) = (one for one in written.metadata_props if one.key == KEY)
    facts.value = json.dumps({**json.loads(facts.value), "quantization": method}, ensure_ascii=False)
    target.write_bytes(written.SerializeToString())
    return method


def milliseconds(network: "Logits", inputs: Iterable[Any]) -> float:
    """The median time of an image."""
    taken = []
    for one in inputs:
        start = time.perf_counter()
        network(one)
        taken.append(1e3 * (time.perf_counter() - start))
        if len(taken) == TIMED:
            break
    return float(np.median(taken))


def outcomes(labels: Sequence[str], classes: Sequence[str], ours: Any, theirs: Any) -> NDArray[np.int8]:
    """For each labelled image 1 where the second alone is correct, -1 the first alone, 0 neither or both."""
    number = {known: place for place, known in enumerate(classes)}
    rows = [row for row, label in enumerate(labels) if label in number]
    truth = np.array([number[labels[row]] for row in rows], dtype=np.int64)
    right = [np.asarray(found)[rows].argmax(1) == truth for found in (ours, theirs)]
    found: NDArray[np.int8] = right[1].astype(np.int8) - right[0].astype(np.int8)
    return found


def _bytes(model: Any, kinds: set[str]) -> int:
    """How many numbers the weights of the operators of these kinds have."""
    sizes = {one.name: int(np.prod(one.dims)) for one in model.graph.initializer}
    return sum(sizes.get(name, 0) for node in model.graph.node if node.op_type in kinds for name in node.input)


@contextmanager
def _without_advice() -> Iterator[None]:
    """What onnxruntime logs about how a graph might be prepared does not reach the screen."""
    root, nowhere = logging.getLogger(), logging.NullHandler()
    nothing: Callable[[logging.LogRecord], bool] = lambda record: False  # noqa: E731
    root.addHandler(nowhere)  # without any, logging would add one of its own for good
    root.addFilter(nothing)
    try:
        yield
    finally:
        root.removeFilter(nothing)
        root.removeHandler(nowhere)


def _reader(name: str, given: Sequence[NDArray[np.uint8]]) -> Any:
    """What onnxruntime takes calibration images from."""
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.rest = iter(given)

        def get_next(self) -> dict[str, Any] | None:
            one = next(self.rest, None)
            return None if one is None else {name: one}

    return Reader()

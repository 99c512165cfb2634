"""The saved model's folder: weights and a description, written whole; opened only where nobody has tampered with it."""

import dataclasses
import hashlib
import json
import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from safetensors.torch import save as serialized
from torch import Tensor

from tlx.backbones import factories
from tlx.backbones.staged_network import Net, misfit
from tlx.backbones.timm_stages import Traced
from tlx.config.schema import Backbone, Head, names_weights
from tlx.core.atomic_files import atomic
from tlx.core.errors import RequestError, reason, unicode
from tlx.core.safe_archive import checksum
from tlx.core.version import __version__, version_of
from tlx.datasets.preprocessing import Preprocessing
from tlx.inference import seen_images, unknown_score
from tlx.inference.run_folder import DESCRIPTION, WEIGHTS
from tlx.inference.unknown_score import UnknownScore

__all__ = ["DESCRIPTION", "WEIGHTS", "Format", "Saved", "describe", "opened", "save", "try_out"]

log = logging.getLogger("tlx")

FORMAT = 1
# What a description may call to make its network.
MAKERS = ["tlx.backbones.torchvision", "tlx.backbones.timm", "tlx.backbones.small_cnn"]
SIZES = range(1, 8193)  # pixels of the sides that a description may ask images to be resized to


@dataclass(frozen=True)
class Format:
    """How a network computed when it was measured: its number format, the first stage that was not frozen, and whether
    the stages before it ran as they are (`exact`) or folded."""

    precision: str
    cut: str
    exact: bool = False


class Saved(NamedTuple):
    """What a folder holds: the network, on the CPU and in evaluation mode, and everything that belongs to it."""

    net: Net
    preprocessing: Preprocessing
    classes: tuple[str, ...]
    format: Format
    description: Mapping[str, Any]
    unknown: UnknownScore | None


def save(
    folder: Path,
    net: Net,
    backbone: Backbone,
    head: Head,
    classes: Iterable[str],
    preprocessing: Preprocessing,
    how: Format,
    facts: Mapping[str, Any],
    images: Mapping[str, Sequence[str]] | None = None,
    unknown: UnknownScore | None = None,
) -> None:
    """Writes the model's folder, whole or not at all.

    Weights go under the original network's own key names. `facts` (data, identity) is added to `model.json`. `images`:
    the digests of those that it has learned from, as `seen_images.write` takes them. `unknown`: the score for images of
    none of its classes.
    """
    description = {**_described(net, backbone, head, classes, preprocessing, how), **facts}
    state = _state(net)
    with atomic(folder) as temporary:
        temporary.mkdir()
        try:
            save_file(state, temporary / WEIGHTS)
            if images is not None:
                seen_images.write(temporary, images)
            if unknown is not None:
                description["unknown"] = unknown_score.written(temporary, unknown)
        except SafetensorError as error:  # what it makes of a full disk
            raise OSError(str(error)) from error
        _write(temporary / DESCRIPTION, {**description, "weights": checksum(temporary / WEIGHTS, "sha256")})


_tried = set[str]()  # models that were found to work: jobs of a sweep have the same


def try_out(
    net: Net, backbone: Backbone, head: Head, classes: Iterable[str], preprocessing: Preprocessing, how: Format
) -> None:
    """Finds out before training whether `save` and `opened` will work: the arguments are theirs.

    The network is built once more from its description, and must take the weights; these are neither written nor
    copied, and the second network has none where it can be built without.

    Raises:
        RequestError: the model could not be saved, or not be opened again.
    """
    failed = f"backbone={backbone.name}: such a model cannot be saved and opened again, so it is not trained"
    try:
        text = _text(_described(net, backbone, head, classes, preprocessing, how))
        description, state = json.loads(text), net.original_state()
        kinds = [(name, value.shape, value.dtype, value.layout) for name, value in state.items()]
        key = hashlib.sha256(f"{text}{kinds}".encode()).hexdigest()
        if key in _tried:
            return
        # What safetensors does not take is a kind of tensor, which shows without the values.
        serialized({name: value.new_empty(0, device="cpu") for name, value in state.items()})
        problem = misfit(_rebuilt(description).original_state(), state)
    except Exception as error:  # whatever a constructor or JSON makes of what was given
        raise RequestError(f"{failed} ({reason(error)})") from error
    if problem:
        raise RequestError(f"{failed} ({DESCRIPTION} makes another network: {problem})")
    _tried.add(key)


def _rebuilt(description: Mapping[str, Any]) -> Net:
    """The network of a description as `opened` builds it; where that can be done, without memory for its weights."""
    if description["backbone"]["stages"] is not None:  # else it is run, which needs numbers
        try:
            with torch.device("meta"):
                return _built(description)[0]
        except Exception as error:  # a constructor that looks at its numbers; what else is wrong is wrong below, too
            log.info("%s is built a second time: %s", description["backbone"]["name"], error, extra={"detail": True})
    return _built(description)[0]


def _described(
    net: Net, backbone: Backbone, head: Head, classes: Iterable[str], preprocessing: Preprocessing, how: Format
) -> dict[str, Any]:
    """What `model.json` says of a network, without the facts of its training."""
    # What rebuilds the network: no weights of its own, and its stage table written out so that nothing is searched.
    seen = preprocessing.to_dict()
    whole = "pad" if "pad" in seen else "squash"
    size = whole if seen["resize"] is None else str(seen["resize"])
    crop = None if seen["crop"] is None else str(seen["crop"])
    architecture = dataclasses.asdict(
        dataclasses.replace(
            backbone,
            weights="none",
            url=None,
            stages=net.table,
            input_size=seen["input_size"],
            resize=size,
            crop=crop,
            mean=seen["mean"],
            std=seen["std"],
            interpolation=seen["interpolation"],
        )
    )
    traced = {"traced": {"stages": net.traced, "last": net.layout.last}} if net.traced else {}
    return {
        "format": FORMAT,
        "backbone": architecture,
        **traced,
        "head": dataclasses.asdict(head),
        "classes": list(classes),
        "preprocessing": seen,
        **dataclasses.asdict(how),
        "temperature": 1.0,
        "unknown_threshold": None,  # of earlier versions, which do not open a model without it
        "versions": {"tlx": __version__, **{name: version_of(name) for name in ("torch", "torchvision", "timm")}},
    }


def _state(net: Net) -> dict[str, Tensor]:
    """The network's tensors on the CPU, each in memory of its own: safetensors refuses any that share theirs."""
    state, taken = dict[str, Tensor](), set[int]()
    for name, tensor in net.original_state().items():
        here = tensor.detach().cpu().contiguous()
        memory = here.untyped_storage().data_ptr()
        state[name] = here.clone() if memory in taken else here
        taken.add(memory)
    return state


def describe(folder: Path, facts: Mapping[str, Any]) -> None:
    """Adds `facts` to what the model in `folder` says of itself, as its metrics once it is measured.

    `model.json` is replaced whole or not at all; the weights are not touched.
    """
    known = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    with atomic(folder / DESCRIPTION) as file:
        _write(file, {**known, **facts})


def opened(path: Path) -> Saved:
    """The model in the folder `path`. Nothing is executed or downloaded.

    Raises:
        RequestError: it is damaged, of another format, or says what `save` never writes.
    """
    try:
        return _opened(path)
    except RequestError as error:
        raise RequestError(f"{path}: {error}") from error
    except OSError as error:
        raise RequestError(f"{path}: cannot be read ({reason(error)})") from error
    except Exception as error:  # files that anybody may have written, or damage that anything may come of
        raise RequestError(f"{path}: damaged ({type(error).__name__}: {reason(error)})") from error


def _opened(path: Path) -> Saved:
    """As `opened`. Raises anything where its files say something impossible."""
    description = json.loads((path / DESCRIPTION).read_text(encoding="utf-8"))
    if description["format"] != FORMAT:
        raise RequestError(f"format {description['format']}; this version of tlx reads format {FORMAT}")
    with ThreadPoolExecutor(1) as beside:  # reads the weights while the network for them is built
        found = beside.submit(checksum, path / WEIGHTS, "sha256")
        net, how, preprocessing, classes = _built(description)
        # A model of before they were written has none.
        if found.result() != description.get("weights", found.result()):
            raise RequestError(f"damaged ({WEIGHTS} is not the file that {DESCRIPTION} was written for)")
    net.load_original(load_file(path / WEIGHTS), where=WEIGHTS)
    net.eval().requires_grad_(False)
    unknown = unknown_score.read(path, description.get("unknown"))  # a model of earlier versions has none
    return Saved(net, preprocessing, classes, how, description, unknown)


def _built(description: Mapping[str, Any]) -> tuple[Net, Format, Preprocessing, tuple[str, ...]]:
    """The network that a description is of, without its weights, and what it says of its use."""
    preprocessing = Preprocessing.from_dict(description["preprocessing"])
    classes = tuple(description["classes"])
    how = Format(description["precision"], description["cut"], description["exact"])
    backbone, head = Backbone(**description["backbone"]), Head(**description["head"])
    if problem := next(_impossible(description, preprocessing, classes, backbone), None):
        raise RequestError(f"damaged ({problem})")
    known = description.get("traced")  # a model of earlier versions has none, and is searched
    traced = Traced(tuple(known["stages"]), known["last"]) if known and not head.stages else None
    net, _ = factories.build(backbone, head, len(classes), seed=0, offline=True, drawn=False, traced=traced)
    if how.cut not in dict(net.named_children()):
        raise RequestError(f"damaged ({DESCRIPTION}: cut={how.cut} is no stage)")
    return net, how, preprocessing, classes


def _impossible(
    description: Mapping[str, Any], preprocessing: Preprocessing, classes: tuple[Any, ...], backbone: Backbone
) -> Iterator[str]:
    """What a description that `save` wrote never says, and what would call or open something but our networks."""
    if backbone._target_ not in MAKERS:
        yield f"backbone._target_={backbone._target_} is none of tlx's own networks"
    if backbone.weights != "none" or backbone.url is not None:
        yield "the backbone has weights from elsewhere"
    for argument in backbone.arguments:
        if names_weights(argument):
            yield f"backbone.arguments.{argument} would open another file"
    if not all(isinstance(name, str) for name in classes) or not len(set(classes)) == len(classes) > 0:
        yield "classes are not a list of different names"
    if description["precision"] not in ("fp32", "bf16") or not isinstance(description["exact"], bool):
        yield f"precision={description['precision']}, exact={description['exact']}"
    size = backbone.input_size
    if size != preprocessing.input_size or size not in SIZES or (preprocessing.resize or size) not in SIZES:
        yield f"images of {size} pixels, resized to {preprocessing.resize}"
    span = preprocessing.range
    if span is not None and not (len(span) == 2 and all(map(_number, span)) and span[0] < span[1]):
        yield f"range={list(span)}: must be two numbers, the lower one first"
    temperature = description["temperature"]
    if not _number(temperature) or temperature <= 0:
        yield f"temperature={temperature}: must be above 0"


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _write(file: Path, description: Mapping[str, Any]) -> None:
    # A class may be a folder whose name is no Unicode: an escape, which JSON reads as what it was.
    file.write_text(unicode(_text(description)), encoding="utf-8")


def _text(description: Mapping[str, Any]) -> str:
    return json.dumps(description, indent=1, ensure_ascii=False)

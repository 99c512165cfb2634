"""What a YAML names by `_target_`, made and tried before training: optimizers, schedules, losses, transforms, readers.

Whatever such a part raises becomes one line with its key, so that no run trains first and fails then.
"""

import contextlib
import dataclasses
import hashlib
import inspect
import itertools
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlx.config.instantiate import component
from tlx.config.schema import AUTO, Config, Phase, Training
from tlx.core.errors import RequestError, reason
from tlx.datasets.images import read_all
from tlx.datasets.splits import Parts

if TYPE_CHECKING:
    from torch import Tensor, nn

    from tlx.datasets.images import Images
    from tlx.datasets.preprocessing import Preprocessing

ANY_RATE = 1e-3  # in place of one that is not found yet
TRIED, DRAWN = 5, 4  # images of which random views are drawn before training, and views of each


def made(key: str, node: Mapping[str, Any], make: Callable[[], Any]) -> Any:
    """What `make` gives; `node` is the YAML's part at `key` that names it.

    Raises:
        RequestError: it failed; the line has the key, the name and the values. Errors of the system are passed on.
    """
    try:
        return make()
    except (RequestError, OSError):
        raise
    except Exception as error:  # code of the user's or of a library: it may raise anything
        values = ", ".join(f"{name}={value}" for name, value in node.items() if name != "_target_")
        kind = "" if isinstance(error, TypeError | ValueError) else f"{type(error).__name__}: "
        what = f"does not take {values}" if values else "failed"
        raise RequestError(f"{key}: {node.get('_target_')} {what}: {kind}{reason(error)}") from error


def parts(key: str, node: Mapping[str, Any], make: Callable[[], Any]) -> Parts:
    """What a data set's reader lists. Raises as `made`, and where it gives something else than `Parts`."""
    found = made(key, node, make)
    if not isinstance(found, Parts):
        raise RequestError(f"{key}: {node.get('_target_')} gives {type(found).__name__}, not tlx.data.Parts")
    return found


def try_out(config: Config, input_size: int) -> None:
    """Makes optimizers, schedules, the loss and transforms, and has them do what they will do in a run.

    Raises:
        RequestError: one does not take its values, or fails.
    """
    import torch

    from tlx.features.mixed_rows import tried
    from tlx.training.mixing import mixing_for
    from tlx.training.optimizers import optimizer_for, schedule_for
    from tlx.training.weighted_loss import loss_for

    def a_step(node: Mapping[str, Any], lr: Any) -> None:
        weight = torch.zeros(2, 2, requires_grad=True)
        optimizer = optimizer_for(node, [{"params": [weight], "lr": ANY_RATE if lr == AUTO else lr}])
        weight.grad = torch.ones_like(weight)
        optimizer.step()

    def each_epoch(node: Mapping[str, Any], epochs: int) -> None:
        factor = schedule_for(node)
        for epoch in range(epochs + 1):
            if not math.isfinite(found := factor(float(epoch), epochs)):
                raise ValueError(f"gives {found} after {epoch} of {epochs} epochs")

    def a_batch() -> None:
        labels = torch.tensor([0, 0, 1])
        mixed = torch.eye(2)[labels] if config.training.mixing is not None else labels
        loss = loss_for(config.loss, config.training, labels)(torch.zeros(3, 2, requires_grad=True), mixed)
        if loss.shape or not math.isfinite(loss.detach()):
            raise ValueError(f"gives {loss.detach().tolist()} of three images")
        loss.backward()  # type: ignore[no-untyped-call]

    made("loss", config.loss, a_batch)
    if (mixing := config.training.mixing) is not None:
        made("training.mixing", mixing if isinstance(mixing, Mapping) else {}, lambda: tried(mixing_for(mixing)))
    for name, phase in config.strategy.phases.items():
        assert phase.epochs is not None
        attempts = {
            "optimizer": partial(a_step, phase.optimizer, phase.lr),
            "schedule": partial(each_epoch, phase.schedule, phase.epochs),
        }
        attempts = {group: attempt for group, attempt in attempts.items() if getattr(phase, group) is not None}
        if isinstance(phase.solver, Mapping):
            attempts["solver"] = partial(_an_epoch, phase, config.training)
        for group, attempt in attempts.items():
            made(f"{group} of phase {name}", getattr(phase, group), attempt)
    transforms(config, input_size)


def _an_epoch(phase: Phase, training: Training) -> None:
    """Trains a layer on four rows for two epochs by the solver of a phase. Raises whatever the solver does."""
    import torch
    from torch import nn

    from tlx.features.batches import CachedRows
    from tlx.training.optimizers import small_layer, solver_for
    from tlx.training.phase_plan import plan, prepare
    from tlx.training.solver_context import SolverContext

    with torch.random.fork_rng(devices=[]):
        net = nn.Sequential()
        net.add_module("head", small_layer(phase.solver))
        rate = ANY_RATE if phase.lr == AUTO else phase.lr
        phase = dataclasses.replace(phase, train_from="head", train_to=None, lr=rate)
        of = plan(net, "tried out", phase, classifier="head")
        prepare(net, of)
        rows = CachedRows([torch.randn(4, 2)], torch.tensor([0, 1, 0, 1]))
        solver = solver_for(phase.solver)(SolverContext(net, of, rows, phase, training, 2))
        for trained in itertools.islice(solver, 2):
            loss, lr = trained[:2]
            if not math.isfinite(loss) or not math.isfinite(lr or 0.0):
                raise ValueError(f"gives a loss of {loss} and a rate of {lr}")


def transforms(config: Config, input_size: int) -> list[Any]:
    """The augmentation's transforms; a size such as `256/224` is a share of the network's input size (pixels).

    Raises:
        RequestError: one does not take its values.
    """
    nodes = config.augmentation.transforms
    return [_transform(node, f"augmentation.transforms[{i}]", input_size) for i, node in enumerate(nodes)]


def try_views(
    config: Config, images: "Images", preprocessing: "Preprocessing", made_of: Sequence[Any], net: "nn.Module"
) -> None:
    """Draws random views, as training will, of some training images, and passes them through the network.

    Raises:
        RequestError: a transform fails, or gives something else than an image; views of different shapes, which are
            no batch; or of a shape that the network does not take.
    """
    import torch

    from tlx.datasets.preprocessing import as_batch
    from tlx.features.batches import Views

    if not made_of:
        return
    views = Views(images, preprocessing, made_of, config.augmentation.input, config.seed)
    some = sorted({i * (len(images) - 1) // (TRIED - 1) for i in range(TRIED)})
    begun = {i: views.begun(torch.from_numpy(images.decode(i)).permute(2, 0, 1)) for i in some}
    drawn = {(i, epoch): image for i, image in begun.items() for epoch in range(DRAWN)}
    for number, node in enumerate(config.augmentation.transforms):
        views.transforms = [made_of[number]]
        drawn = {
            key: _drawn(f"augmentation.transforms[{number}]", node, partial(views.drawn, image, key), image)
            for key, image in drawn.items()
        }
    shapes = list(dict.fromkeys(str(list(view.shape)) for view in drawn.values()))
    if len(shapes) > 1:
        raise RequestError(
            f"augmentation.transforms: give views of different shapes, {' and '.join(shapes[:2])}; end with one of a "
            "fixed size, as {_target_: torchvision.transforms.v2.Resize, size: [224/224, 224/224]}"
        )
    batch = as_batch(list(drawn.values())[:2])
    try:
        with torch.no_grad():
            net(batch.to(next(net.parameters()).device))
    except RuntimeError as error:
        raise RequestError(
            f"augmentation.transforms: give views {shapes[0]}, which {config.backbone.name} cannot take "
            f"({reason(error)}); its own are [3, {preprocessing.input_size}, {preprocessing.input_size}]"
        ) from error


def _drawn(key: str, node: Mapping[str, Any], draw: Callable[[], Any], image: "Tensor") -> "Tensor":
    """What a transform gives of an image. Raises as `made`, and where it is no image."""
    import torch

    view = made(key, node, draw)
    if not isinstance(view, torch.Tensor) or view.ndim != 3 or not view.numel():
        values = "".join(f" {name}={value}" for name, value in node.items() if name != "_target_")
        gives = list(view.shape) if isinstance(view, torch.Tensor) else type(view).__name__
        raise RequestError(
            f"{key}: {node['_target_']}{values} makes {gives} of an image {list(image.shape)}; it must give an image"
        )
    return view


def samples(config: Config) -> Parts | None:
    """The images that `evaluation.samples` names, its test part; None where it names none.

    Raises:
        RequestError: they cannot be had, or one cannot be read.
    """
    node, key = config.evaluation.samples, "evaluation.samples"
    if node is None:
        return None
    if not isinstance(node, Mapping) or "_target_" not in node:
        raise RequestError(f"{key}={node}: needs a _target_ (the function that reads the images)")
    found = parts(key, node, component(node, key, offline=config.runtime.offline))
    if found.test is None or not len(found.test):
        raise RequestError(f"{key}: {node['_target_']} lists no test images, which are those that are predicted")
    _, unreadable = read_all({"test": found.test})
    for path, why in unreadable:
        raise RequestError(f"{key}: {path}: cannot be read as an image ({why})")
    return found


def written(transforms: Sequence[Any]) -> list[str]:
    """Digests of the files in which the user's own transforms are written: what they do is not in the YAML."""
    files = set[str]()
    for transform in transforms:
        with contextlib.suppress(TypeError):  # built in
            kind = transform if inspect.isroutine(transform) else type(transform)
            if kind.__module__.partition(".")[0] not in ("tlx", "torch", "torchvision"):
                files.add(inspect.getfile(kind))
    return sorted(hashlib.sha256(Path(file).read_bytes()).hexdigest() for file in files if os.path.isfile(file))


def _transform(node: Any, key: str, input_size: int) -> Any:
    """What a transform's node makes, transforms within it included."""
    if not isinstance(node, Mapping) or "_target_" not in node:
        raise RequestError(f"{key}={node}: needs a _target_ (a class or function), as in conf/augmentation/flip.yaml")
    values = {name: _value(value, f"{key}.{name}", input_size) for name, value in node.items()}
    return made(key, node, component(values, key))


def _value(value: Any, key: str, input_size: int) -> Any:
    if isinstance(value, Mapping) and "_target_" in value:
        return _transform(value, key, input_size)
    if isinstance(value, list):
        return [_value(one, f"{key}[{i}]", input_size) for i, one in enumerate(value)]
    found = re.fullmatch(r"(\d+)/(\d+)", value) if isinstance(value, str) else None
    if found is None:
        return value
    pixels = round(input_size * int(found[1]) / int(found[2])) if int(found[2]) else 0
    if pixels < 1:
        raise RequestError(
            f"{key}={value}: must be a share of the input size of one pixel at least, as in 256/224 (of {input_size})"
        )
    return pixels

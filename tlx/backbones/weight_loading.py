"""The weights of a file, put into a network: the state dict that fits, all of it but the last layer."""

import logging
import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from tlx.backbones import pretrained_weights, state_dicts
from tlx.backbones.staged_network import Net, misfit
from tlx.config.schema import Backbone
from tlx.core.errors import RequestError, printable

__all__ = ["load"]

log = logging.getLogger(__name__)

COUNTS = ("total_ops", "total_params")  # thop's


def load(net: Net, file: Path, cfg: Backbone, *, keep_last: bool) -> None:
    """Everything but the last layer must fit; a last layer that is missing or differs keeps its random weights.

    Layers that the network has no name for, as a projection head beside it, are left out where all of it is there; so
    are the counts that thop, which measures networks, puts into each layer.

    Raises:
        RequestError: something is missing, left over, of another shape, or no finite number.
    """
    own = net.original_state()
    found, choice = state_dicts.take(file, own, f"{net.layout.last}.")
    state: Mapping[str, Tensor] = found
    where = f"backbone.weights={cfg.weights} does not fit {cfg.name}"
    if (cfg.weights == "imagenet" or pretrained_weights.official(cfg, file)) and not own.keys() & state.keys():
        state = _in_order(own, state, where)
    last = {key for key in own if key.startswith(f"{net.layout.last}.")}
    fits = all(key in state and state[key].shape == own[key].shape for key in last)
    # An earlier run's head: several layers at the place of the last one, or one of its own behind it.
    extra = {key for key in state.keys() - own.keys() if key.startswith((f"{net.layout.last}.", "head.", "new_head."))}
    if keep_last and not fits:
        raise RequestError(f"head=append: {file} has no last layer that fits {cfg.name}'s; take head=linear")
    counts = {key for key in state.keys() - own.keys() if key.rpartition(".")[2] in COUNTS}
    beside = _beside(own, {key: value for key, value in state.items() if key not in counts}, last) - extra
    left = extra | beside | counts
    body = {key: value for key, value in state.items() if key not in left and (fits or key not in last)}
    given = body if cfg.weights != "imagenet" else {}
    broken = [key for key, value in given.items() if not math.isfinite(value.sum(dtype=torch.float64))]
    if broken:
        more = ", …" if len(broken) > 1 else ""
        raise RequestError(
            f"{file}: weights that are NaN or infinite, in {len(broken)} of {len(body)} tensors "
            f"({printable(broken[0])}{more}); take one that was saved before the training diverged"
        )
    net.load_original(body if fits else {**body, **{key: own[key] for key in last}}, where)
    if choice:
        log.info("%s", choice)
    if beside:
        names = sorted({key.partition(".")[0] for key in beside})
        log.info(
            "%s: tensors left out, of layers that %s does not have: %d (%s)",
            file,
            cfg.name,
            len(beside),
            ", ".join(names),
        )
    if counts:
        log.info("%s: tensors left out, counts of thop's: %d", file, len(counts))
    if extra or not fits:
        log.info("%s: its last layer is missing or of another shape; the new head takes its place", file)


def _beside(own: Mapping[str, Tensor], state: Mapping[str, Tensor], last: set[str]) -> set[str]:
    """The keys of layers that the network has nothing of, where the file has all else of it.

    A layer is known by the first word of its keys: `layer1.2.conv1` of a deeper network is no layer of its own.
    """
    needed = {key for key in own if key not in last and not key.endswith("num_batches_tracked")}
    if not needed <= state.keys():
        return set()
    layers = {key.partition(".")[0] for key in own}
    return {key for key in state if key.partition(".")[0] not in layers}


def _in_order(own: Mapping[str, Tensor], state: Mapping[str, Tensor], where: str) -> Mapping[str, Tensor]:
    """A published file (its hash is known) with key names of its own: its tensors are in the network's order."""
    same = len(own) == len(state) and all(
        mine.shape == theirs.shape and a.rpartition(".")[2] == b.rpartition(".")[2]
        for (a, mine), (b, theirs) in zip(own.items(), state.items(), strict=True)
    )
    if not same:
        raise RequestError(f"{where}: {misfit(own, state)}")
    return dict(zip(own, state.values(), strict=True))

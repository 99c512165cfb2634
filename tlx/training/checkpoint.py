"""Where an unfinished run stands, on disk: one file in its folder, written after epochs, removed when all is done.

Tensors and JSON only (safetensors, the JSON in its header), so that opening one executes nothing; written whole or not
at all. It is complete: `TrainState` says why no random state is needed.
"""

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlx.core.atomic_files import atomic
from tlx.core.errors import RequestError
from tlx.core.named_tensors import named_tensors
from tlx.core.version import __version__

if TYPE_CHECKING:
    from torch import Tensor, nn

    from tlx.training.train_state import TrainState

FILE = "checkpoint.safetensors"
VERSION = 1
_SMALL = 64 * 2**20  # bytes up to which a checkpoint that is put off is kept in memory
_PACE = 20.0  # a checkpoint may take one part in so many of the time: what is lost instead is less than it costs
_SHAPE: dict[str, type] = {
    **dict.fromkeys(("key", "name", "command", "cwd", "identity", "data"), str),
    **dict.fromkeys(("config", "summary", "seconds"), dict),
    "rows": list,
}
_PLAIN = (
    "phase",
    "within",
    "waited",
    "epoch",
    "epochs",
    "seconds",
    "best_epoch",
    "best_score",
    "val_accuracy",
    "scaled",
)


class Keeper:
    """Writes a run's checkpoint, after each epoch: where epochs are shorter than writing, after some."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self._next = -math.inf  # when the time for it has come
        self._waiting: tuple[dict[str, Tensor], dict[str, Any]] | None = None  # what was not written for that
        self._size = 0  # bytes of the last one
        self.epoch = 0  # how far the file goes

    def keep(self, run: Mapping[str, Any], net: "nn.Module | None" = None, state: "TrainState | None" = None) -> None:
        """Writes `run` (JSON) and the training state, with the tensors that it has moved, the best and the optimizer's.

        Raises:
            RequestError: the disk is full, or the folder cannot be written.
        """
        began = time.perf_counter()
        early = state is not None and began < self._next
        if early and self._size > _SMALL:
            return
        tensors, content = dict[str, "Tensor"](), dict[str, Any]()
        if net is not None and state is not None:
            tensors, content = _packed(net, state)
            self._size = sum(tensor.nbytes for tensor in tensors.values())
        self._waiting = tensors, {"version": VERSION, "tlx": __version__, **run, **content}
        if not early:
            self.flush()
            self._next = time.perf_counter() + _PACE * (time.perf_counter() - began)

    def flush(self) -> None:
        """Writes what `keep` has put off.

        Raises:
            RequestError: the disk is full, or the folder cannot be written.
        """
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        if self._waiting is None:
            return
        tensors, whole = self._waiting
        with atomic(self.path) as temporary:
            try:
                save_file(tensors, temporary, {"tlx": json.dumps(whole)})
            except SafetensorError as error:  # what it makes of a full disk
                raise OSError(str(error)) from error
            temporary.chmod(0o600)  # it has the command as typed; not every version of safetensors writes it so
        self.epoch, self._waiting = whole.get("progress", {}).get("epoch", 0), None

    def drop(self) -> None:
        """Removes it: everything is done and written."""
        self.path.unlink(missing_ok=True)


def read(folder: Path) -> dict[str, Any]:
    """What the checkpoint in `folder` says, without its tensors.

    Raises:
        RequestError: there is none, it is cut short or otherwise damaged, or of another version.
    """
    from safetensors import SafetensorError, safe_open

    path = folder / FILE
    if not path.is_file():
        raise RequestError(f"{folder}: no checkpoint to resume from (no {FILE} in it)")
    try:
        with safe_open(path, framework="np") as file:
            state = json.loads((file.metadata() or {})["tlx"])
        found = state["version"]
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise RequestError(
            f"{path}: damaged or cut short ({' '.join(str(error).split())}); remove it to start the run anew"
        ) from error
    if found != VERSION:
        raise RequestError(
            f"{path}: a checkpoint of version {found}, made by tlx {state.get('tlx')}; this tlx {__version__} reads "
            f"version {VERSION}: resume with that version, or remove the file to start the run anew"
        )
    if (
        wrong := next((name for name, kind in _SHAPE.items() if not isinstance(state.get(name), kind)), None)
    ) or not all(isinstance(value, int | float) for value in state["seconds"].values()):
        raise RequestError(f"{path}: damaged ({wrong or 'seconds'}); remove it to start the run anew")
    whole: dict[str, Any] = state
    return whole


def load(folder: Path, run: Mapping[str, Any], net: "nn.Module", state: "TrainState") -> None:
    """Puts the checkpoint in `folder`, of which `read` gave `run`, into `net` and `state`.

    Raises:
        RequestError: it does not fit the network.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if "progress" not in run:  # nothing was trained yet
        return
    path = folder / FILE
    try:
        tensors = load_file(path)
        own = net.state_dict()
        with torch.no_grad():
            for name in run["moved"]:
                if own[name].shape != tensors[f"net/{name}"].shape:
                    raise ValueError(f"{name} is of another shape")
                own[name].copy_(tensors[f"net/{name}"])
        known = run["progress"]
        if "best_loss" in known:  # of a version that chose by it alone
            known = {**known, "best_score": -known["best_loss"]}
        known = {"scaled": False, **known}  # so did versions that have not written it
        for name in _PLAIN:
            setattr(state, name, known[name])
        state.moved = set(run["moved"])
        state.best = {n: tensors.get(f"best/{n}", own[n]).to(own[n].device).clone() for n in run["best"]}
        state.optimizer_state = None if run["optimizer"] is None else dict(_joined(run["optimizer"], tensors))
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise RequestError(
            f"{path}: does not fit the network ({' '.join(str(error).split())}); remove it to start the run anew"
        ) from error


def _packed(net: "nn.Module", state: "TrainState") -> tuple[dict[str, "Tensor"], dict[str, Any]]:
    moved = named_tensors(net, sorted(state.moved))
    tensors = {f"net/{name}": tensor for name, tensor in moved.items()}
    if state.best_epoch != state.epoch:  # else the best is what is there
        tensors |= {f"best/{name}": tensor for name, tensor in state.best.items()}
    # A solver without an optimizer has no state of its own.
    optimizer = None if state.optimizer is None else _split(state.optimizer.state_dict(), tensors)
    # Copies: two names may share one memory, which the format refuses, and channels_last is none of its layouts.
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    content = {
        "progress": {name: getattr(state, name) for name in _PLAIN},
        "moved": sorted(state.moved),
        "best": sorted(state.best),
        "optimizer": optimizer,
    }
    return tensors, content


def _split(node: Any, tensors: dict[str, "Tensor"], path: str = "optimizer") -> Any:
    """The node as JSON: its tensors go into `tensors`, and their names stay in their place."""
    if isinstance(node, Mapping):
        return {"map": [[key, _split(value, tensors, f"{path}/{key}")] for key, value in node.items()]}
    if isinstance(node, list | tuple):
        return {"list": [_split(value, tensors, f"{path}/{i}") for i, value in enumerate(node)]}
    if hasattr(node, "detach"):
        tensors[path] = node
        return {"tensor": path}
    return {"value": node}


def _joined(node: Mapping[str, Any], tensors: Mapping[str, "Tensor"]) -> Any:
    ((kind, content),) = node.items()
    if kind == "map":
        return {key: _joined(value, tensors) for key, value in content}
    if kind == "list":
        return [_joined(value, tensors) for value in content]
    return tensors[content] if kind == "tensor" else content

"""Digests of weights: what makes two networks the same."""

import hashlib
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from tlx.core.thread_pool import for_images, side_by_side

_digests: Any = WeakTensorKeyDictionary()  # tensor → (how often it was changed, a digest of its bytes)


_LARGE = 1 << 18  # bytes from which a thread is worth its while


def fingerprint(module: nn.Module) -> str:
    """A digest of every tensor of `module`, names and buffers (the input's scaling, too) included: 32 hex digits."""
    named = _named(module)
    # torch counts a tensor's changes in place; those of BatchNorm's statistics it does not.
    new = [t for _, t in named if not isinstance(t, nn.Parameter) or _digests.get(t, (-1,))[0] != t._version]
    large = [tensor for tensor in new if tensor.nbytes > _LARGE]
    small = [tensor for tensor in new if tensor.nbytes <= _LARGE]
    for tensors, workers in ((large, for_images(torch.device("cpu"))), (small, 1)):
        for tensor, found in zip(tensors, side_by_side(_digest, tensors, workers), strict=True):
            _digests[tensor] = (tensor._version, found)
    digest = hashlib.sha256()
    for name, tensor in named:
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(_digests[tensor][1])
    return digest.hexdigest()[:32]


def _named(module: nn.Module) -> list[tuple[str, Tensor]]:
    """Parameters and then buffers, in torch's order and by its names; a run asks often, and torch takes its time."""
    parameters, buffers = list[tuple[str, Tensor]](), list[tuple[str, Tensor]]()
    modules, tensors = set[int](), set[int]()  # by id: what is shared has the first of its names

    def walk(inner: nn.Module, prefix: str) -> None:
        if id(inner) in modules:
            return
        modules.add(id(inner))
        for found, own in ((parameters, inner._parameters), (buffers, inner._buffers)):
            for name, tensor in own.items():
                if tensor is not None and id(tensor) not in tensors:
                    tensors.add(id(tensor))
                    found.append((f"{prefix}{name}", tensor))
        for name, child in inner._modules.items():
            if child is not None:
                walk(child, f"{prefix}{name}.")

    walk(module, "")
    return parameters + buffers


def _digest(tensor: Tensor) -> bytes:
    return hashlib.sha256(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data).digest()

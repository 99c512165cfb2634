"""Where a convolutional network looks: Grad-CAM (Selvaraju et al. 2017) on its last maps."""

from typing import Any

import torch
from torch import Tensor, nn


def grad_cam(net: nn.Module, images: Tensor, classes: Tensor) -> Tensor | None:
    """How much each place of the last maps speaks for a class, float32 [N, h, w], the largest of an image 1.

    None for networks without such maps: transformers, and those whose last maps have one place. The network is in eval
    mode afterwards; nothing of it changes.

    Args:
        images: as the network takes them, [N, …].
        classes: of each image the class that is looked for, int64 [N].
    """
    net.eval()
    layer = _last_maps(net, images[:1])
    if layer is None:
        return None
    module, number = layer
    calls, maps = 0, list[Tensor]()

    def hook(_: nn.Module, __: Any, output: Tensor) -> Tensor | None:
        nonlocal calls
        calls += 1
        if calls != number:
            return None
        maps.append(output.detach().requires_grad_())
        return maps[0].clone()  # what follows may work in place

    handle = module.register_forward_hook(hook)
    try:
        with torch.enable_grad():
            scores = net(images).float().gather(1, classes[:, None]).sum()
            (slopes,) = torch.autograd.grad(scores, maps[:1])
    finally:
        handle.remove()
    weights = slopes.float().mean((2, 3), keepdim=True)
    found = (weights * maps[0].detach().float()).sum(1).clamp_min(0)
    return found / found.amax((1, 2), keepdim=True).clamp_min(1e-12)


def _last_maps(net: nn.Module, image: Tensor) -> tuple[nn.Module, int] | None:
    """The layer that gives the last maps of more than one place, and in which of its calls; None with tokens behind."""
    seen, found = dict[nn.Module, int](), list[tuple[nn.Module, int] | None]([None])

    def hook(module: nn.Module, _: Any, output: Any) -> None:
        seen[module] = seen.get(module, 0) + 1
        if not isinstance(output, Tensor):
            return
        if output.ndim == 4 and min(output.shape[2:]) > 1:
            channels_last = output.shape[1] == output.shape[2] < output.shape[3]
            found[0] = None if channels_last else (module, seen[module])
        elif output.ndim == 3:
            found[0] = None

    layers = [module for module in net.modules() if not list(module.children())]
    handles = [module.register_forward_hook(hook) for module in layers]
    try:
        with torch.no_grad():
            net(image)
    finally:
        for handle in handles:
            handle.remove()
    return found[0]

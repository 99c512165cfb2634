"""The plain loop's work by fastai: a learner over groups of layers, all but the last frozen.

`fine_tune` would unfreeze the whole network after an epoch, which is other work; its first part is `freeze`, as here.
By fastai's default the frozen BatchNorms go on learning, so that the gradient goes through all of the network.
"""

import time
from typing import Any

import torch
from fastai.basics import Callback, DataLoaders, Learner, OptimWrapper, accuracy
from torch import nn

from bench import plain


class Times(Callback):  # type: ignore[misc]
    """Notes when each epoch begins and ends."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def before_epoch(self) -> None:
        """An epoch begins."""
        self.began = time.perf_counter()

    def after_epoch(self) -> None:
        """Training and validation are over."""
        self.seconds.append(time.perf_counter() - self.began)


def main() -> None:
    """One fit."""
    given = plain.options()
    train, test, classes = plain.loaders(given)
    net = plain.network(given, classes).requires_grad_(True)  # the learner freezes

    def groups(model: nn.Module) -> list[list[nn.Parameter]]:
        learns = {name: name.split(".")[0] in given.train for name, _ in model.named_parameters()}
        return [[p for name, p in model.named_parameters() if learns[name] is side] for side in (False, True)]

    def optimizer(parameters: Any, lr: float, **others: Any) -> Any:
        if given.optimizer == "adam":
            return OptimWrapper(parameters, torch.optim.Adam, lr=lr)
        return OptimWrapper(parameters, torch.optim.SGD, lr=lr, momentum=0.9)

    times = Times()
    learner = Learner(
        DataLoaders(train, test),
        net,
        loss_func=nn.functional.cross_entropy,
        opt_func=optimizer,
        splitter=groups,
        metrics=accuracy,
        cbs=times,
    )
    learner.freeze()
    with learner.no_logging():
        learner.fit(given.epochs, given.lr)
    plain.say(given, train, test, times.seconds, float(learner.recorder.values[-1][-1]))


if __name__ == "__main__":
    main()

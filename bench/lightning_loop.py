"""The plain loop's work by Lightning: the part that is frozen is the `backbone` of `BackboneFinetuning`.

It is never unfrozen. By Lightning's default its BatchNorms go on learning, so that the gradient goes through all of it.
"""

import itertools
import time
import warnings
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import BackboneFinetuning
from torch import Tensor, nn

from bench import plain


class Module(lightning.LightningModule):
    """The network in the two parts that `BackboneFinetuning` asks for; both run where they lie in the network."""

    def __init__(self, net: nn.Module, given: Any) -> None:
        super().__init__()
        self.net, self.given, self.starts = net, given, list[float]()
        frozen = {name: child for name, child in net.named_children() if name not in given.train}
        self.backbone = nn.ModuleDict(frozen)  # the same modules under another name

    def training_step(self, batch: Any, index: int) -> Tensor:
        """A step's loss."""
        images, labels = batch
        return nn.functional.cross_entropy(self.net(images), labels)

    def validation_step(self, batch: Any, index: int) -> None:
        """Counts what is right."""
        images, labels = batch
        right = (self.net(images).argmax(1) == labels).float().mean()
        self.log("accuracy", right, batch_size=len(labels))

    def on_train_epoch_start(self) -> None:
        """Notes the time; validation belongs to the epoch before."""
        self.starts.append(time.perf_counter())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """That of the plain loop."""
        return plain.solver(self.given, self.net.parameters())


def main() -> None:
    """One fit."""
    given = plain.options()
    train, test, classes = plain.loaders(given)
    module = Module(plain.network(given, classes), given)
    warnings.filterwarnings("ignore")  # advice about workers and batches
    trainer = lightning.Trainer(
        max_epochs=given.epochs,
        precision="bf16-mixed" if given.amp else "32-true",
        callbacks=[BackboneFinetuning(unfreeze_backbone_at_epoch=given.epochs + 1)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(module, train, test)
    times = [*module.starts, time.perf_counter()]
    seconds = [after - before for before, after in itertools.pairwise(times)]
    plain.say(given, train, test, seconds, float(trainer.callback_metrics["accuracy"]))


if __name__ == "__main__":
    main()

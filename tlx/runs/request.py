"""One run from overrides as typed."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from tlx.config import tracking_uri
from tlx.core.errors import RequestError

if TYPE_CHECKING:
    from tlx.runs.run_summary import Summary


def run_overrides(overrides: list[str], config_dir: str | None = None) -> "Summary":
    """Composes, checks and runs one configuration."""
    from tlx.config.compose import compose

    overrides = tracking_uri.typed(overrides)
    node = compose(overrides, config_dir)
    if is_sweep(node):
        raise RequestError("seeds and folds make a sweep, not one run: python -m tlx does it, or a loop over seed")
    return run_single(node, overrides, config_dir)


def run_single(node: DictConfig, overrides: Sequence[str], config_dir: str | None) -> "Summary":
    from tlx.config.compose import folder, without_hydra
    from tlx.config.resolvers import choices_of
    from tlx.config.unread_keys import Typed, unread
    from tlx.config.validation import checked

    config = checked(without_hydra(node))
    typed = Typed(overrides, unread(node, several=False), choices=choices_of(node))
    if config.sweep.name is not None:
        raise RequestError(f"sweep.name={config.sweep.name}: is for a sweep; add -m or seeds=…, or leave it out")
    from tlx.config.command_line import command
    from tlx.runs import run

    return run.run(config, folder(node, "hydra.run.dir"), command=command(overrides, config_dir), typed=typed)


def is_sweep(node: DictConfig) -> bool:
    """Whether it requests several seeds or folds, and so for a sweep."""
    return node.seeds is not None or node.folds is not None

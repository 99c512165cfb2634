"""The choices of a group with their keys, composed at once."""

from typing import Any

from omegaconf import OmegaConf

from tlx.config.compose import choices, compose

__all__ = ["entries"]


def entries(group: str, config_dir: str | None) -> dict[str, tuple[str, dict[str, Any]]]:
    """Each choice of a group: its first line up to the command in it, and its keys with those that it inherits.

    References are left as they stand. All choices are composed at once, below the one node that takes any key: each by
    itself takes a seventh of a second.
    """
    found = choices(group, config_dir)
    node = compose([f"+{group}@dataset.every.{name}={name}" for name in found], config_dir)
    tree = OmegaConf.to_container(node.dataset.every, resolve=False)
    assert isinstance(tree, dict)
    return {name: (about.split(": python")[0], tree[name]) for name, about in found.items()}

"""All subcommands."""

from functools import cache
from importlib import import_module

from tlx.cli.subcommand import Subcommand

__all__ = ["NAMES", "subcommand", "subcommands"]

# In the order of --help; the module of each bears its name.
NAMES = (
    *("resume", "runs", "compare", "report", "search", "recommend", "curve", "extend", "predict", "evaluate", "embed"),
    *("drift", "export", "serve", "promote", "ui", "weights", "data", "audit", "sync", "cache"),
)


def subcommand(name: str) -> Subcommand | None:
    """The subcommand of a name; None where there is none. Its module alone is imported, and no other's."""
    if name not in NAMES:
        return None
    found = import_module(f"tlx.cli.{name}").SUBCOMMAND
    assert isinstance(found, Subcommand)
    return found


@cache
def subcommands() -> dict[str, Subcommand]:
    """Every subcommand by its name, in the order of --help. Their modules import nothing that takes seconds."""
    return {name: found for name in NAMES if (found := subcommand(name))}

"""The command line that repeats a run, as it is printed and logged."""

import shlex
from collections.abc import Sequence

from tlx.core.errors import shown


def command(overrides: Sequence[str], config_dir: str | None, *, multirun: bool = False) -> str:
    """What to type for it."""
    extra = ["--config-dir", config_dir] if config_dir else []
    return shown(shlex.join(["python", "-m", "tlx", *(["-m"] if multirun else []), *extra, *overrides]))

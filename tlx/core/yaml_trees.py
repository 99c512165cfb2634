"""YAML files as trees, read by libyaml where that is there: ten times as fast as in Python."""

from pathlib import Path
from typing import Any

import yaml

__all__ = ["read_yaml"]
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_yaml(file: Path) -> Any:
    """What a YAML file in UTF-8 says; plain types alone.

    Raises:
        OSError, UnicodeDecodeError, yaml.YAMLError: it cannot be read.
    """
    return yaml.load(file.read_text(encoding="utf-8"), _Loader)

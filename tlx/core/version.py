"""The versions of tlx and of the packages that it is installed with."""

from functools import cache
from importlib.metadata import PackageNotFoundError, version

__all__ = ["__version__", "version_of"]
__version__ = "0.1.0"


@cache
def version_of(package: str) -> str:
    """The version of an installed package, read once; empty where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""

"""One run: prepared, trained, saved, measured, and what it leaves in its folder."""

import sys
from types import ModuleType
from typing import Any


class _Runs(ModuleType):
    """This package, which is also the function `tlx.runs`: importing it replaces that name of `tlx` by the package."""

    def __call__(self, *conditions: str, **options: Any) -> Any:
        return sys.modules["tlx"].list_of_runs(*conditions, **options)


sys.modules[__name__].__class__ = _Runs

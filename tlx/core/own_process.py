"""What a command sets for its process, which is its own: a library must leave these to the program that uses it."""

import atexit
import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["begin", "end", "uncollected"]

RARELY = 50_000  # new objects until the next search for garbage: what is imported first is none
USUAL = gc.get_threshold()
_code: int | None = None  # the process's exit code, once it is known
_is_own = _frozen = False


def begin() -> None:
    """To be called first, before anything large is imported."""
    global _is_own
    _is_own = True
    # A thread that has nothing to do must not wait in a loop: it takes the processor from the thread for which it
    # waits. On a machine that others use as well, a step of training took hundreds of times as long.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if not getattr(atexit, "_ncallbacks", lambda: 1)():
        atexit.register(_leave)  # runs last, since it is the first
    gc.set_threshold(RARELY)


def end(code: int) -> None:
    """The command is through, and `code` is how: what it has imported need not be taken apart one by one."""
    global _code
    _code = code
    gc.freeze()


@contextmanager
def uncollected() -> Iterator[None]:
    """A block that imports: without searches for garbage among what is imported, which is none.

    In a process of one's own what is imported first is left out of later searches, too: of torch's modules each takes
    a third of a second. What is imported later is not, for networks that are to be freed may be there by then.
    """
    global _frozen
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if _is_own and not _frozen:
            _frozen = True
            gc.freeze()
            gc.set_threshold(*USUAL)
        if enabled:
            gc.enable()


def _leave() -> None:
    """Ends the process without freeing what the system frees at once: a fifth of a second after `import torch`."""
    if _code is None:
        return
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
    except (OSError, ValueError):
        return  # Python says what could not be written, as it always does
    os._exit(_code)

"""Work side by side in threads, each of which torch does not divide further.

On a processor forward passes run so: threads that divide one pass wait for each other after each operation, and for one
that something else has displaced, as the decoding of images does. Passes side by side do not wait, and they round alike
for any number of threads.
"""

import collections
import contextlib
import ctypes
import functools
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # names of mallopt(3), of malloc.h
CHUNK = 8  # images that are decoded by one thread after the other

Item = TypeVar("Item")
Result = TypeVar("Result")


def side_by_side(work: Callable[[Item], Result], items: Iterable[Item], workers: int) -> Iterator[Result]:
    """`work` of each item, in order, by so many worker threads; with one, in the calling thread.

    The calling thread draws from `items`, a few ahead of the results. `work` sets its own modes of torch (no_grad,
    autocast): they are a thread's.
    """
    if workers == 1:
        yield from map(work, items)
        return
    threads, waiting = _threads(workers), collections.deque[Future[Result]]()
    try:
        for item in items:
            waiting.append(threads.submit(work, item))
            if len(waiting) == 2 * workers:  # as many again wait for the worker thread that is free next
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def for_passes(device: torch.device) -> int:
    """Worker threads for forward passes: a GPU runs one pass after another."""
    if device.type == "cpu":
        _hold_memory()
    return torch.get_num_threads() if device.type == "cpu" else 1


def for_images(device: torch.device) -> int:
    """Worker threads that decode images: on a CPU those of the forward passes, so that no thread displaces another."""
    return torch.get_num_threads() if device.type == "cpu" else min(os.cpu_count() or 1, 16)


@functools.cache
def _hold_memory() -> None:
    """Lets the C library hold what is freed, where it is glibc.

    Every pass takes and frees the same blocks. It would give them back to the system and get them again as new pages,
    each of which the system clears: a tenth of the time of a pass where memory is virtual.
    """
    with contextlib.suppress(OSError, AttributeError):
        glibc = ctypes.CDLL("libc.so.6")
        for setting, size in ((_MMAP_THRESHOLD, 1 << 25), (_TRIM_THRESHOLD, 1 << 28), (_TOP_PAD, 1 << 26)):
            glibc.mallopt(setting, size)


@functools.cache
def _threads(workers: int) -> ThreadPoolExecutor:
    """They stay: oneDNN prepares its operations anew in each new thread."""
    own, all_there = torch.get_num_threads(), threading.Barrier(workers)

    def begin(_: int) -> None:
        torch.get_num_threads()  # a thread takes over the common number when it is first requested, once
        torch.set_num_threads(1)
        all_there.wait()

    threads = ThreadPoolExecutor(workers, thread_name_prefix="tlx-worker")
    collections.deque(threads.map(begin, range(workers)), maxlen=0)
    torch.set_num_threads(own)  # what it was set to above is also what other threads would begin with
    return threads

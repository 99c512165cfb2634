"""Seeds of every random generator."""

import contextlib
import hashlib
import random
from collections.abc import Iterator


def seed_from(*parts: object) -> int:
    """A 63-bit seed that depends on every part and on nothing else (stable across processes and machines)."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def seed_all(*parts: object) -> None:
    """Seeds Python's, NumPy's and torch's generators from `parts`."""
    import numpy as np
    import torch

    seed = seed_from(*parts)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    # Without an accelerator torch would keep each seed, and who set it, for the day that there is one.
    everywhere = torch.accelerator.is_available()
    (torch.manual_seed if everywhere else torch.default_generator.manual_seed)(seed)


@contextlib.contextmanager
def kept_generators() -> Iterator[None]:
    """Python's, NumPy's and torch's generators are afterwards as they were before the block."""
    import numpy as np
    import torch

    python, numpy = random.getstate(), np.random.get_state()
    gpus = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    try:
        with torch.random.fork_rng(devices=gpus):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)

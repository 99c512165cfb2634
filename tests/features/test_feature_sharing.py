"""Several machines fill one store: what one computes no other does, and one that is killed costs what it held."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from tests.conftest import ROOT
from tests.features.test_feature_cache import Run
from tlx.features import disk_cache, feature_sharing, sharded_features
from tlx.features.feature_rows import Task

WORDS = ("dataset.train=30",)
SHARD = 16  # images: two passes
# A node that takes its time: it prints the digest of each image that it has computed.
NODE = """
import sys, time
from functools import partial
from pathlib import Path
from tests.features import test_feature_sharing as of
from tlx.features import feature_rows, feature_sharing, sharded_features
of.watch(lambda keys: (print(*keys, sep="\\n", flush=True), time.sleep(1.0)))
of.Run(Path(sys.argv[1]), *of.WORDS, shared=True).rows()
"""


def watch(seen: "object") -> None:
    """Leases of a second, small shards; `seen` gets the digests of the images of each pass."""
    feature_sharing.LEAST = feature_sharing.MOST = SHARD
    sharded_features.share = partial(feature_sharing.share, expiry=1.0)  # type: ignore[assignment]
    compute = Task.compute

    def computed(task: Task, indices: NDArray[np.int64]) -> Iterator[tuple[Tensor, Tensor]]:
        keys = task.keys()
        for index, x in compute(task, indices):
            seen([keys[i] for i in index.tolist()])  # type: ignore[operator]
            yield index, x

    Task.compute = computed  # type: ignore[method-assign]


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The digests of the images that this process computes."""
    monkeypatch.setattr(feature_sharing, "LEAST", SHARD)
    monkeypatch.setattr(feature_sharing, "MOST", SHARD)
    monkeypatch.setattr(sharded_features, "share", feature_sharing.share)
    monkeypatch.setattr(Task, "compute", Task.compute)
    found = list[str]()
    watch(found.extend)
    return found


def left_over(store: Path) -> list[str]:
    return [path.name for path in store.glob("*/.*")]


@pytest.mark.parametrize("budget", [None, 0])  # in memory, and in files alone
def test_what_one_machine_has_computed_another_reads(tmp_path: Path, watched: list[str], budget: int | None) -> None:
    alone = Run(tmp_path / "alone", *WORDS)
    expected = alone.x()
    watched.clear()
    first, second = (Run(tmp_path / "both", *WORDS, shared=True, budget=budget) for _ in range(2))
    assert torch.equal(first.x(), expected)
    assert len(watched) == len(set(watched)) == len(expected)
    assert first.features.served == {"rows": len(expected), "read": 0}
    assert torch.equal(second.x(), expected)
    assert len(watched) == len(expected)
    assert second.features.served == {"rows": len(expected), "read": len(expected)}
    assert left_over(tmp_path / "both" / "features") == []
    # A run that shares with nobody finds the same.
    assert torch.equal(Run(tmp_path / "both", *WORDS).x(), expected)
    assert len(watched) == len(expected)


def test_of_two_machines_one_is_killed_and_only_what_it_held_is_computed_again(
    tmp_path: Path, watched: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = Run(tmp_path / "alone", *WORDS).x()
    watched.clear()
    other = subprocess.Popen(
        [sys.executable, "-c", NODE, str(tmp_path / "both")], cwd=ROOT, text=True, stdout=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert other.stdout is not None
    with other:
        passed = [other.stdout.readline().strip() for _ in range(SHARD + SHARD // 2)]  # a shard, and half of the next
        assert all(passed), "it has not ended"
        compute = Task.compute

        def computed(task: Task, indices: NDArray[np.int64]) -> Iterator[tuple[Tensor, Tensor]]:
            for number, each in enumerate(compute(task, indices)):
                if number == 1 and other.poll() is None:
                    other.send_signal(signal.SIGKILL)  # while both compute
                yield each

        monkeypatch.setattr(Task, "compute", computed)
        run = Run(tmp_path / "both", *WORDS, shared=True)
        found = run.x()
        passed += [line.strip() for line in other.stdout]
    assert other.returncode == -signal.SIGKILL
    assert torch.equal(found, expected), "to the bit"
    assert {*passed, *watched} == set(run.features.splits["train"].images.digests())
    assert len(watched) == len(set(watched))
    assert len(watched) < len(expected)
    again = {*passed} & {*watched}
    assert again <= {*passed[-SHARD:]}, "of its last shard alone"
    assert again, "it was killed before it had written that"
    assert left_over(tmp_path / "both" / "features") == []
    store = run.features.store
    assert store is not None
    assert sum(entry.images for entry in store.entries()) == len(expected), "each row is there once"


def test_where_nothing_can_be_written_all_is_computed_here(tmp_path: Path, watched: list[str]) -> None:
    expected = Run(tmp_path / "alone", *WORDS).x()
    (tmp_path / "both").mkdir()
    (tmp_path / "both" / "features").write_text("a file, where the folder should be")
    run = Run(tmp_path / "both", *WORDS, shared=True)
    assert torch.equal(run.x(), expected)
    assert sum("cannot be shared" in line for line in run.said) == 1


def test_where_the_folder_keeps_nothing_all_is_computed_here(
    tmp_path: Path, watched: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A quota may refuse the last file of a block only."""
    expected = Run(tmp_path / "alone", *WORDS).x()
    watched.clear()

    def refused(*_: object) -> int:
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setattr(disk_cache, "write_names", refused)
    assert torch.equal(Run(tmp_path / "both", *WORDS, shared=True).x(), expected)
    assert len(watched) <= len(set(watched)) + SHARD  # the first shard was computed in vain

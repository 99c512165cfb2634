"""Large arrays: the same content in memory and in a file, of which little is in memory."""

import os
from pathlib import Path

import numpy as np
import pytest

from tlx.core import large_arrays
from tlx.core.large_arrays import Selected, blocks, release, zeros


@pytest.mark.parametrize("small", [0, 1 << 30])
def test_what_is_written_stays_after_it_was_released(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: int
) -> None:
    monkeypatch.setattr(large_arrays, "SMALL", small)
    monkeypatch.setattr(large_arrays, "BLOCK", 5 * 24)
    made, random = zeros((101, 3), np.int64, tmp_path), np.random.default_rng(0)
    assert isinstance(made, np.memmap) == (small == 0)
    assert not made.any()
    content = random.integers(0, 1 << 60, made.shape)
    for place, some in blocks(content, 7):
        made[place] = some
        release(made)
    release(made[5:])
    assert (made == content).all()
    assert [place.stop - place.start for place, _ in blocks(made)] == [5] * 20 + [1]
    assert (np.concatenate([some for _, some in blocks(made)]) == content).all()
    order = random.permutation(101)
    chosen = Selected(made, order)
    assert len(chosen) == 101
    assert (chosen[10:90] == content[order[10:90]]).all()
    assert (chosen[np.array([4, 4, 100])] == content[order[[4, 4, 100]]]).all()
    assert os.listdir(tmp_path) == []


def test_without_a_place_on_the_disk_an_array_is_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(large_arrays, "SMALL", 0)
    monkeypatch.setattr(large_arrays, "reserve", full)
    made = zeros((10, 10), np.float32, tmp_path / "absent")
    assert type(made) is np.ndarray
    assert (made == 0).all()


@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="the system does not say what is in memory")
def test_a_large_array_takes_little_memory() -> None:
    def pages() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1])

    size, page = 4 * large_arrays.SMALL, os.sysconf("SC_PAGE_SIZE")
    before = pages()
    made = zeros((size // 4096, 4096), np.uint8)
    for place, _ in blocks(made):
        made[place] = 1
    total = sum(int(some.sum()) for _, some in blocks(made))
    assert total == size
    assert (pages() - before) * page < size / 4

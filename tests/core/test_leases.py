"""A lease is one holder's, until it is released or shows no life."""

import os
import time
from pathlib import Path

import pytest

from tlx.core.leases import Leases


def test_a_piece_is_one_holders_until_it_is_released(tmp_path: Path) -> None:
    one, other = (Leases(tmp_path / "pieces", pytest.fail, expiry=60.0) for _ in range(2))
    with one.claim("a", "x") as mine:
        assert mine
        with other.claim("a", "y") as again:
            assert not again
        with other.claim("b", "y") as another:
            assert another
    with other.claim("a", "y") as mine:
        assert mine
    assert not list((tmp_path / "pieces").iterdir())


def test_what_shows_no_life_is_taken_over_and_what_does_is_not(tmp_path: Path) -> None:
    left = list[str]()
    dead, living = tmp_path / ".lease-dead", tmp_path / ".lease-living"
    dead.write_text("0 half a block")
    living.write_text("1 all of a block")
    leases, until = Leases(tmp_path, left.append, expiry=0.2), time.monotonic() + 0.5
    while time.monotonic() < until:
        os.utime(living)
        with leases.claim("living", "x") as mine:
            assert not mine
        time.sleep(0.02)
    with leases.claim("dead", "x") as mine:
        assert not mine, "seen for the first time"
    time.sleep(0.3)
    with leases.claim("dead", "mine") as mine:
        assert mine
        assert left == ["half a block"]
        assert dead.read_text().endswith(" mine")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lease-living"]


def test_a_holder_shows_life_and_does_not_release_what_was_taken_from_it(tmp_path: Path) -> None:
    leases = Leases(tmp_path, pytest.fail, expiry=0.2)
    with leases.claim("a", "x"):
        first = (tmp_path / ".lease-a").stat().st_mtime_ns
        time.sleep(0.2)
        assert (tmp_path / ".lease-a").stat().st_mtime_ns > first
        (tmp_path / ".lease-a").write_text("another's")
    assert (tmp_path / ".lease-a").read_text() == "another's"

"""Differences between configurations are named by the keys that were typed."""

import pytest

from tests.config.test_compose import config_of
from tlx.config.identity import differences, results

FOLDER = ("dataset=image_folder", "dataset.root=photos")
CHANGED = [
    ((), ("training.lr=0.5",), ["training.lr was 0.001, is 0.5"]),
    ((), ("strategy.phases.probe.lr=0.5",), ["strategy.phases.probe.lr was 0.001, is 0.5"]),
    (FOLDER, (*FOLDER[:1], "dataset.root=leaves"), ["dataset.root was photos, is leaves"]),
    ((), ("+optimizer.eps=1",), ["optimizer.eps was None, is 1"]),
]


@pytest.mark.parametrize(("before", "now", "lines"), CHANGED)
def test_a_difference_has_the_key_that_is_typed(
    before: tuple[str, ...], now: tuple[str, ...], lines: list[str]
) -> None:
    assert differences(results(config_of(*before)), results(config_of(*now))) == lines

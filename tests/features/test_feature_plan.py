"""Where rows are cached follows from their sizes and from what memory and disk have, before anything is computed."""

from dataclasses import replace

import pytest

from tlx.features.feature_plan import Memory, PlannedRows, decided

TOP = PlannedRows(2, "fc", "content", "train", images=100, views=1, row_bytes=10, namespace="ab", fits_disk=True)
BELOW = replace(TOP, cut=1, stage="layer4", row_bytes=40)
GPU, CPU = Memory("cuda", 10_000), Memory("cpu", 100_000)


def places(*memories: Memory, budget: int | None = None, chain: tuple[PlannedRows, ...] = (TOP, BELOW)) -> list[str]:
    return [rows.place for rows in decided(chain, memories, budget).chain]


def test_the_first_memory_that_has_enough_is_taken_then_files_then_none() -> None:
    assert places(GPU, CPU) == ["cuda", "cuda"]
    # The 1,000 bytes of the first are promised when the 4,000 of the second are placed: half of 8,999 is less.
    assert places(replace(GPU, free=8_999), CPU) == ["cuda", "cpu"]
    assert places(replace(GPU, free=1_999), CPU) == ["cpu", "cpu"]
    assert places(replace(GPU, free=0), replace(CPU, free=0)) == ["files", "files"]
    pixels = replace(BELOW, namespace="")
    assert places(replace(CPU, free=0), chain=(TOP, pixels)) == ["files", ""]
    assert places(replace(CPU, free=0), chain=(replace(TOP, fits_disk=False), pixels)) == ["", ""]


def test_a_budget_counts_what_is_cached_and_promised_but_never_takes_all_that_is_free() -> None:
    assert places(CPU, budget=5_000) == ["cpu", "cpu"]
    assert places(CPU, budget=4_999) == ["cpu", "files"]
    assert places(replace(CPU, cached=1), budget=5_000) == ["cpu", "files"]
    assert places(replace(CPU, free=1_100), budget=5_000) == ["files", "files"]


def test_without_a_budget_rows_take_half_of_what_was_free_before_there_were_any() -> None:
    assert places(Memory("cpu", free=1_000, cached=1_000), chain=(TOP,)) == ["files"]
    assert places(Memory("cpu", free=2_000, cached=0), chain=(TOP,)) == ["cpu"]
    assert places(Memory("cpu", free=3_000, cached=1_000), chain=(TOP,)) == ["cpu"]


@pytest.mark.parametrize(("copies", "place"), [(1, "cpu"), (2, "cpu"), (3, "files")])
def test_ranks_that_share_a_memory_have_a_copy_each(copies: int, place: str) -> None:
    assert places(Memory("cpu", free=4_000, copies=copies), chain=(TOP,)) == [place]
    assert places(Memory("cpu", free=9_000, copies=copies), budget=2_000, chain=(TOP,)) == [place]


def test_nothing_is_planned_below_rows_that_are_there_and_random_views_are_not_cached() -> None:
    assert places(CPU, chain=(replace(TOP, made=True), BELOW)) == ["made"]
    assert places(CPU, chain=(TOP, replace(BELOW, made=True), BELOW)) == ["cpu", "made"]
    assert places(CPU, chain=(replace(TOP, views=0), replace(BELOW, views=0))) == ["", ""]


def test_a_plan_reads_line_by_line() -> None:
    plan = decided((TOP, replace(BELOW, namespace="", views=2)), (replace(CPU, free=3_000),), None)
    assert str(plan).splitlines() == [
        "fc input, train: 100 images, 1 KiB, computed once from the layer4 input and cached in memory, and in files "
        "for later runs",
        "layer4 input, train: 100 images × 2 views, 8 KiB, more than 1 KiB of memory: computed for each batch from the "
        "images",
    ]
    live, made = decided((replace(TOP, views=0),), (CPU,), None), decided((replace(TOP, made=True),), (CPU,), None)
    assert str(live) == "fc input, train: computed for each batch from the images"
    assert str(made) == "fc input, train: 100 images, 1 KiB, cached before"
    files, gpu = decided((TOP,), (replace(CPU, free=0),), None), decided((TOP,), (GPU, CPU), None)
    assert str(files).endswith(", more than 0 KiB of memory: computed once from the images and cached in files")
    assert str(gpu).endswith("cached in memory of the cuda device, and in files for later runs")

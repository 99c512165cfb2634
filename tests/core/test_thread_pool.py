"""Work side by side: the same results in the same order, whatever the number of threads."""

import threading
import time
from collections.abc import Iterator

import pytest
import torch

from tests.features.test_frozen_forward import NETWORKS, stirred
from tlx.core.thread_pool import for_images, for_passes, side_by_side
from tlx.features.batches import CachedRows, Through, in_order
from tlx.features.frozen_forward import Forward
from tlx.training.evaluation import logits

CPU = torch.device("cpu")


@pytest.fixture(params=[1, 2, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    own = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    assert torch.get_num_threads() == request.param, "the caller's own threads were changed"
    torch.set_num_threads(own)


def test_results_come_in_order_and_items_are_taken_a_few_ahead(threads: int) -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for item in range(100):
            taken = item
            yield item

    def work(item: int) -> int:
        time.sleep(0.002 * (item % 3))  # those that come later are done earlier
        return item * item

    found = side_by_side(work, items(), threads)
    assert [next(found) for _ in range(10)] == [i * i for i in range(10)]
    assert taken < 10 + 2 * threads
    assert list(found) == [i * i for i in range(10, 100)]


def test_each_worker_has_one_of_torchs_threads_and_what_it_starts_has_no_workers_of_its_own(threads: int) -> None:
    all_there = threading.Barrier(threads)

    def work(item: int) -> tuple[str, int, list[int]]:
        if item < threads:
            all_there.wait(60)  # breaks where they are not side by side
        inner = list(side_by_side(lambda x: x + 1, [1, 2], for_passes(CPU)))
        return threading.current_thread().name, torch.get_num_threads(), inner

    assert for_passes(CPU) == for_images(CPU) == threads
    found = list(side_by_side(work, range(20), threads))
    assert len({name for name, _, _ in found}) == threads
    assert {number for _, number, _ in found} == {1}
    assert all(inner == [2, 3] for _, _, inner in found)


def test_a_gpu_has_its_passes_one_after_another_and_its_images_from_many_threads() -> None:
    assert for_passes(torch.device("cuda")) == 1
    assert for_images(torch.device("cuda")) >= 1


def test_an_error_comes_where_its_result_would_and_the_workers_go_on(threads: int) -> None:
    def work(item: int) -> int:
        if item == 3:
            raise ValueError("three")
        return item

    found = side_by_side(work, range(10), threads)
    assert [next(found) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(found)
    assert list(side_by_side(work, range(3), threads)) == [0, 1, 2]


def test_what_nobody_asks_for_any_more_is_not_done(threads: int) -> None:
    done, go_on = list[int](), threading.Event()

    def work(item: int) -> int:
        if item:
            go_on.wait()
        done.append(item)
        return item

    found = side_by_side(work, range(1000), threads)
    next(found)
    time.sleep(0.02)  # each worker has begun something
    found.close()  # type: ignore[attr-defined]
    go_on.set()
    list(side_by_side(lambda _: time.sleep(0.02), range(2 * threads), threads))  # what was under way has ended
    assert len(done) <= 1 + threads


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("name", ["resnet", "fire modules", "vit"])
def test_rows_do_not_depend_on_the_number_of_threads(name: str, exact: bool, precision: str) -> None:
    torch.manual_seed(0)
    make, size = NETWORKS[name]
    net, x = stirred(make()), torch.randint(0, 256, (37, 3, size, size)).float()
    kept = CachedRows([x], torch.arange(37))
    own, found = torch.get_num_threads(), []
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            through = Through(Forward(net[:2], precision, exact=exact), kept)
            made = torch.cat([rows for rows, _ in through.batches(in_order(37, 16), 0)])
            found.append((made, logits(net[2:], through, precision)))
    finally:
        torch.set_num_threads(own)
    for made, outputs in found[1:]:
        assert torch.equal(made, found[0][0])
        assert torch.equal(outputs, found[0][1])

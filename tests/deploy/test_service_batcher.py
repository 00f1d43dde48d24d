import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import numpy as np
import pytest

from historyad.deploy.service import batcher as batching
from historyad.deploy.service.batcher import Batcher, QueueFullError


class Sums:
    """A score that can be checked, and that waits while its gate is closed."""

    def __init__(self):
        self.sizes = []
        self.threads = set()
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, samples):
        self.threads.add(threading.get_ident())
        self.sizes.append(len(samples))
        assert self.gate.wait(20)
        if (samples < 0).any():
            raise ArithmeticError("negative")
        return samples.sum(1).astype(np.float32)


@pytest.fixture
def sums():
    return Sums()


@pytest.fixture
def batcher(sums):
    with closing(Batcher(sums, batch_size=8, queue_size=32)) as batcher:
        yield batcher
        sums.gate.set()


def rows(n, value=1.0):
    return np.full((n, 3), value)


def occupy(batcher, sums):
    """Close the gate and let the thread take one sample, so that what follows waits."""
    sums.gate.clear()
    first = batcher.submit(rows(1))
    while not first.running():
        time.sleep(0.001)
    return first


def test_each_caller_gets_its_own_scores_in_order(batcher, sums):
    def ask(i):
        samples = np.arange(i % 4 + 1, dtype=float)[:, None] + np.full(3, i)
        while True:
            try:
                return samples.sum(1), batcher.submit(samples).result(10)
            except QueueFullError:
                time.sleep(0.001)

    with ThreadPoolExecutor(16) as pool:
        for expected, scores in pool.map(ask, range(500)):
            assert scores.tolist() == expected.tolist()
    assert len(sums.threads) == 1  # which owns the model


def test_what_waits_is_scored_together(batcher, sums):
    occupy(batcher, sums)
    answers = [batcher.submit(rows(n)) for n in (3, 3, 2, 1)]
    assert batcher.waiting == 9
    sums.gate.set()
    assert [len(answer.result(10)) for answer in answers] == [3, 3, 2, 1]
    assert sums.sizes == [1, 8, 1]
    assert batcher.waiting == 0


def test_a_group_is_never_divided(batcher, sums):
    occupy(batcher, sums)
    answers = [batcher.submit(rows(n)) for n in (5, 5, 20)]
    sums.gate.set()
    assert [len(answer.result(10)) for answer in answers] == [5, 5, 20]
    assert sums.sizes == [1, 5, 5, 20]


def test_a_full_queue_refuses_the_whole_group(batcher, sums):
    occupy(batcher, sums)
    batcher.submit(rows(30))
    with pytest.raises(QueueFullError):
        batcher.submit(rows(3))
    assert batcher.waiting == 30
    fits = batcher.submit(rows(2))
    sums.gate.set()
    assert len(fits.result(10)) == 2


def test_cancelled_work_is_not_done(batcher, sums):
    occupy(batcher, sums)
    cancelled, wanted = batcher.submit(rows(8)), batcher.submit(rows(2))
    assert cancelled.cancel()
    sums.gate.set()
    assert len(wanted.result(10)) == 2
    assert sums.sizes == [1, 2]


def test_an_error_reaches_those_who_wait_and_no_others(batcher, sums):
    occupy(batcher, sums)
    together = [batcher.submit(rows(4, -1.0)), batcher.submit(rows(4))]
    later = batcher.submit(rows(4))
    sums.gate.set()
    for answer in together:
        with pytest.raises(ArithmeticError, match="negative"):
            answer.result(10)
    assert len(later.result(10)) == 4
    assert batcher.is_running


def test_other_work_is_done_alone_and_in_its_turn(batcher, sums):
    occupy(batcher, sums)
    before = batcher.submit(rows(2))
    alone = batcher.submit(rows(1), lambda samples: (samples.shape, list(sums.sizes)))
    failing = batcher.submit(rows(1), lambda samples: 1 / 0)
    after = batcher.submit(rows(2))
    sums.gate.set()
    assert alone.result(10) == ((1, 3), [1, 2])
    with pytest.raises(ZeroDivisionError):
        failing.result(10)
    assert len(before.result(10)) == len(after.result(10)) == 2
    assert sums.sizes == [1, 2, 2]


def test_closing_finishes_what_was_accepted(batcher, sums):
    first = occupy(batcher, sums)
    answers = [first, *(batcher.submit(rows(3)) for _ in range(9))]
    threading.Timer(0.05, sums.gate.set).start()
    batcher.close()
    assert all(answer.done() and answer.result() is not None for answer in answers)
    assert not batcher.is_running
    with pytest.raises(QueueFullError):
        batcher.submit(rows(1))
    batcher.close()  # twice does no harm


def test_an_idle_batcher_closes_at_once(sums):
    Batcher(sums, batch_size=8, queue_size=32).close()
    assert sums.sizes == []


def test_samples_of_different_shapes_are_scored_apart(batcher, sums):
    occupy(batcher, sums)
    answers = [batcher.submit(np.ones((2, width))) for width in (3, 4, 4, 3)]
    sums.gate.set()
    found = [answer.result(10).tolist() for answer in answers]
    assert found == [[3.0, 3.0], [4.0, 4.0], [4.0, 4.0], [3.0, 3.0]]
    assert sums.sizes == [1, 2, 4, 2]


def test_it_says_for_how_long_it_has_been_at_work(batcher, sums):
    assert batcher.busy_for == 0
    first = occupy(batcher, sums)
    while not (before := batcher.busy_for):
        time.sleep(0.001)
    while batcher.busy_for == before:
        time.sleep(0.001)
    sums.gate.set()
    first.result(10)
    while batcher.busy_for:
        time.sleep(0.001)


def test_a_small_batch_waits_for_what_is_on_its_way_and_for_no_more(sums, monkeypatch):
    monkeypatch.setattr(batching, "_MOMENT", 60.0)
    taken_on = [3]
    with closing(Batcher(sums, batch_size=8, queue_size=32, taken_on=lambda: taken_on[0])) as one:
        answers = [one.submit(rows(1, value)) for value in (1.0, 2.0, 3.0)]
        assert [answer.result(10).tolist() for answer in answers] == [[3], [6], [9]]
        taken_on[0] = 1
        assert one.submit(rows(1)).result(10).tolist() == [3]
        taken_on[0] = 100
        assert len(one.submit(rows(20)).result(10)) == 20  # large enough by itself
    assert sums.sizes == [3, 1, 20]


def test_what_waits_for_others_is_answered_in_a_moment(sums):
    with closing(Batcher(sums, batch_size=8, queue_size=32, taken_on=lambda: 2)) as one:
        assert one.submit(rows(1)).result(10).tolist() == [3]

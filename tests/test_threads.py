"""How many threads are used, and that results do not depend on it."""

from __future__ import annotations

import os
import threading

import numpy as np
import pytest

import fpsolve as fp
from fpsolve.errors import InputError
from fpsolve.model.sample_moments import BLOCK
from fpsolve.model.threads import for_each, thread_count


def test_the_number_of_threads(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3,1")
    monkeypatch.setenv("FPSOLVE_THREADS", "5")
    assert thread_count() == 5
    monkeypatch.delenv("FPSOLVE_THREADS")
    assert thread_count() == 3
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert thread_count() == len(os.sched_getaffinity(0))
    for wrong in ("0", "many", "-1"):
        monkeypatch.setenv("FPSOLVE_THREADS", wrong)
        with pytest.raises(InputError, match="positive integer"):
            thread_count()


def test_every_item_once_on_several_threads_and_errors_come_back(monkeypatch):
    monkeypatch.setenv("FPSOLVE_THREADS", "3")
    seen, names, meet = np.zeros(10, dtype=int), set(), threading.Barrier(3, timeout=20)

    def work(item: int) -> None:
        if item < 3:
            meet.wait()  # passes only when three threads are at work
        seen[item] += 1
        names.add(threading.current_thread().name)

    for_each(work, range(10))
    assert (seen == 1).all() and len(names) == 3
    for_each(lambda item: names.add(threading.current_thread().name), range(10), parallel=False)
    assert len(names) == 4
    with pytest.raises(ZeroDivisionError):
        for_each(lambda item: 1 // (item - 7), range(10))


@pytest.mark.parametrize("count", [40, BLOCK + 100])
def test_results_have_the_same_bits_on_any_number_of_threads(monkeypatch, count):
    rng = np.random.default_rng(0)
    data = {"x": rng.normal(size=count), "y": rng.normal(size=count)}
    landscape = fp.sample_landscape("a*tanh(b*x)", ["a", "b"], ["x"], "y", None, data)
    x = rng.normal(size=(3 * BLOCK // count + 5, 2))
    found = []
    for threads in ("1", "2", "3"):
        monkeypatch.setenv("FPSOLVE_THREADS", threads)
        found.append([landscape.loss(x), *vars(landscape.statistics(x)).values()])
    for other in found[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(found[0], other, strict=True))

"""Reading ahead in threads: in order, not too far, and errors in their turn."""

import threading

import pytest

from sdsnn_lightning.cores import read_ahead, usable_cores


def test_there_is_a_core():
    assert usable_cores() >= 1


@pytest.mark.parametrize("at_once", [1, 3, 50])
def test_results_come_in_the_order_of_the_items(at_once):
    gates = [threading.Event() for _ in range(6)]

    def wait(k):
        if k % 2 == 0 and at_once > 1:  # the even ones end after their neighbours
            assert gates[k + 1].wait(60)
        gates[k].set()
        return 10 * k

    assert list(read_ahead(wait, range(6), at_once, workers=4)) == [0, 10, 20, 30, 40, 50]
    assert list(read_ahead(wait, [], at_once)) == []


def test_no_more_than_asked_for_is_read_ahead():
    taken = []

    def items():
        for k in range(100):
            taken.append(k)
            yield k

    results = read_ahead(abs, items(), at_once=4, workers=2)
    assert taken == []
    for k in range(10):
        assert next(results) == k
        assert len(taken) == k + 5  # the one yielded, and four ahead
    results.close()
    assert len(taken) == 14


def test_an_error_comes_in_its_turn_and_ends_the_rest():
    begun = []

    def read(k):
        begun.append(k)
        if k == 3:
            raise ValueError("item 3 is broken")
        return k

    results = read_ahead(read, range(100), at_once=8, workers=1)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="item 3 is broken"):
        next(results)
    assert max(begun) < 12
    assert list(results) == []

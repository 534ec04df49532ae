"""Work in the background: order, the bound, an error at its own item, and an end of the thread whatever happens."""

import threading
from contextlib import closing

import pytest

from eval.benchmarks.lmms.ahead import ahead, shares


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_in_order_with_the_error_at_its_own_item(depth: int) -> None:
    def work(number: int) -> int:
        if number == 3:
            raise ValueError(number)
        return number * 10

    found: list[object] = []
    for number, call in ahead(work, range(6), depth):
        try:
            found.append((number, call()))
        except ValueError as error:
            found.append((number, str(error)))
    assert found == [(0, 0), (1, 10), (2, 20), (3, "3"), (4, 40), (5, 50)]


@pytest.mark.parametrize("depth", [1, 2])
def test_so_many_wait_and_no_more(depth: int) -> None:
    """While item 0 is in the caller's hands, ``depth`` more are worked on, and none behind them is even taken."""
    done = [threading.Event() for _ in range(8)]
    taken: list[int] = []

    def items() -> object:
        for number in range(8):
            assert threading.current_thread() is threading.main_thread()
            taken.append(number)
            yield number

    with closing(ahead(lambda number: done[number].set(), items(), depth)) as coming:
        _, call = next(coming)
        call()
        assert done[depth].wait(10)
        assert taken == list(range(depth + 1))
        assert not done[depth + 1].is_set()


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_the_thread_ends_with_the_loop(error: type[BaseException]) -> None:
    before = threading.active_count()
    begun: list[int] = []

    def stop() -> None:
        with closing(ahead(begun.append, range(100), 2)) as coming:
            for _, call in coming:
                call()
                raise error

    with pytest.raises(error):
        stop()
    assert threading.active_count() == before
    assert len(begun) <= 3


def test_all_questions_about_a_video_go_to_one_process() -> None:
    videos = ["a", "a", "b", "a", "c", "c", "d"]
    assert shares(videos, 1) == [0] * 7
    two = shares(videos, 2)
    assert two == [0, 0, 1, 0, 1, 1, 0]
    assert {owner for video, owner in zip(videos, two, strict=True) if video == "c"} == {1}
    assert shares([], 3) == []
    assert shares(["a"], 3) == [0]

"""Who does what when: the next items in the background while the caller is busy with one, and shares of processes."""

from collections import Counter, deque
from collections.abc import Callable, Generator, Hashable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def ahead(
    work: Callable[[Item], Result], items: Iterable[Item], depth: int
) -> Generator[tuple[Item, Callable[[], Result]]]:
    """Each item, in order, with a call that returns ``work(item)`` or raises what it raised.

    The work is done by one thread, item after item, so it may remember the item before. At most ``depth`` results wait
    for their call while one more is worked on. Items are taken in the caller's thread. Close the iterator, as
    ``contextlib.closing`` does, to end the thread: it finishes the item in hand and begins no other.

    Args:
        work: what to do with an item.
        items: taken ``depth`` before they are asked for.
        depth: 0 does everything in the caller's thread, when its call is made.
    """
    if depth == 0:
        yield from ((item, partial(work, item)) for item in items)
        return
    pool = ThreadPoolExecutor(1, "ahead")
    waiting: deque[tuple[Item, Future[Result]]] = deque()
    try:
        for item in items:
            waiting.append((item, pool.submit(work, item)))
            if len(waiting) > depth:
                yield _call(waiting)
        while waiting:
            yield _call(waiting)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def shares(videos: Iterable[Hashable], processes: int) -> list[int]:
    """Which process answers each question: all about one video the same, the one that has fewest when it first comes.

    Args:
        videos: what tells the video of each question, in order.
        processes: at least 1.
    """
    order = list(videos)
    questions = Counter(order)
    load, owner = [0] * processes, dict[Hashable, int]()
    for video in order:
        if video not in owner:
            owner[video] = load.index(min(load))
            load[owner[video]] += questions[video]
    return [owner[video] for video in order]


def _call(waiting: deque[tuple[Item, Future[Result]]]) -> tuple[Item, Callable[[], Result]]:
    """The first that waits; in a function, so that nothing here holds on to a result that was taken."""
    item, future = waiting.popleft()
    return item, future.result

"""Where a long piece of work stands, with its rate and the time left; nothing where no terminal looks at it."""

from collections.abc import Iterable
from typing import Any, TypeVar

from tqdm import tqdm

Item = TypeVar("Item")


def progress(items: Iterable[Item], what: str, total: int | None = None, done: int = 0, quiet: bool = False) -> Any:
    """The items one after the other, with a bar on stderr that goes away at the end (``tqdm``).

    Args:
        items: to work on; ``update(n)`` moves the bar of an empty iterable.
        what: they are.
        total: how many, where the iterable does not tell.
        done: of these before now.
        quiet: no bar, also on a terminal.
    """
    return tqdm(
        items,
        what,
        total,
        initial=done,
        leave=False,
        dynamic_ncols=True,
        mininterval=0.5,
        disable=True if quiet else None,  # None: only on a terminal
    )

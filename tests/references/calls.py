"""Functions that say when they are called."""

from collections.abc import Callable
from functools import wraps
from typing import Any


def noted(calls: list[Any], work: Callable[..., Any], before: Callable[[], Any] = lambda: None) -> Callable[..., Any]:
    """``work``, each call of which does ``before`` and adds an entry to ``calls`` first."""

    @wraps(work)
    def run(*args: Any, **kwargs: Any) -> Any:
        before()
        calls.append(args)
        return work(*args, **kwargs)

    return run

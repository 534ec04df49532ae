"""What every command line of the project shares: one line for a user's mistake, and the commit of the source tree."""

import argparse
import subprocess
import sys
from collections.abc import Callable
from functools import cache, wraps
from pathlib import Path
from typing import Any, NoReturn

from holitom.errors import InputError
from holitom.files import disk_trouble


class Parser(argparse.ArgumentParser):
    """A parser whose complaints are an :class:`InputError` like every other mistake: one line, without the usage.

    Its description stays as it is written.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"formatter_class": argparse.RawDescriptionHelpFormatter, **options})

    def error(self, message: str) -> NoReturn:
        """Called by argparse for a wrong command line."""
        raise InputError(f"{message}; see --help")


def require_least(options: argparse.Namespace, **bounds: int) -> None:
    """Refuse numbers that are too small; options that were not given (None) pass, of several each is looked at.

    Args:
        options: as parsed.
        **bounds: the least value of each option.

    Raises:
        InputError: naming the option as it is typed, its value and the bound.
    """
    for name, bound in bounds.items():
        value = getattr(options, name)
        if value is not None and min(value if isinstance(value, list) else [value]) < bound:
            raise InputError(f"--{name.replace('_', '-')} = {value} is out of range: it must be at least {bound}")


def user_errors(main: Callable[..., None]) -> Callable[..., None]:
    """Decorator of a ``main``: an :class:`InputError` or a full disk becomes one line on stderr, status 2."""

    @wraps(main)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            main(*args, **kwargs)
        except InputError as error:
            sys.stderr.write(f"error: {' '.join(str(error).split())}\n")
            sys.exit(2)
        except OSError as error:
            trouble = disk_trouble(error)
            if trouble is None:
                raise
            sys.stderr.write(f"error: {trouble}\n")
            sys.exit(2)

    return run


@cache
def commit() -> str:
    """The commit of this source tree, with ``-dirty`` if files differ from it; ``unknown`` outside a clone.

    New files count, since methods are found by themselves; results and the README made from them do not. Asked once:
    files that change while a process runs are not those it runs.
    """
    root = Path(__file__).resolve().parent.parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        head = git("rev-parse", "--short=12", "HEAD")
        changes = git("status", "--porcelain", "-uall", "--", ".", ":!results", ":!README.md")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{head}-dirty" if changes else head

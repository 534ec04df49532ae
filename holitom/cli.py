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


class Count(argparse.Action):
    """``action=Count`` of an option: a whole number, or several, none below ``least``; argparse complains of others."""

    def __init__(self, *args: Any, least: int = 1, **options: Any) -> None:
        super().__init__(*args, **{**options, "type": int})
        self.least = least

    def __call__(
        self, parser: argparse.ArgumentParser, options: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        """Called by argparse with what was given."""
        for value in values if isinstance(values, list) else [values]:
            if value < self.least:
                parser.error(f"{option} = {value} is out of range: it must be at least {self.least}")
        setattr(options, self.dest, values)


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

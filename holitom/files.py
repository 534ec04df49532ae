"""Files that are there as a whole or not at all."""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from holitom.errors import InputError

_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS)


def disk_trouble(error: BaseException | None) -> str | None:
    """What a disk that is full, failing or read-only is told as, also as the cause of another error; else None."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _DISK:
            where = f"{error.filename}: " if error.filename else ""
            return f"{where}the disk gave up ({os.strerror(error.errno)}): free space or name another disk, and repeat"
        error = error.__cause__ or error.__context__
    return None


def make_folder(path: Path) -> Path:
    """Make a folder and those above it, and see that files can be written into it.

    Raises:
        InputError: if that is not possible.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path} cannot be a folder ({error.strerror}): name another one") from None
    if not os.access(path, os.W_OK | os.X_OK):
        raise InputError(f"{path} cannot be written into: name a folder of yours")
    return path


def part_of(path: Path) -> Path:
    """A hidden name beside ``path`` for what is not whole yet, which no other process on any machine takes."""
    return path.with_name(f".{path.name}.{uuid4().hex}.part")


def place_folder(part: Path, path: Path) -> None:
    """Give a whole folder its name; where another process was faster, that one's folder stays and ``part`` vanishes."""
    try:
        os.replace(part, path)
    except OSError as error:
        shutil.rmtree(part, ignore_errors=True)
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A path beside ``path`` to write to; it takes the place of ``path`` at the end, and vanishes on an exception.

    Raises:
        InputError: if the folder cannot be made or ``path`` is a folder.
    """
    if path.is_dir():
        raise InputError(f"{path} is a folder: name a file")
    make_folder(path.parent)
    part = part_of(path)
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A hidden folder inside ``path``; at the end its files move to ``path``, on an exception they vanish.

    Files of ``path`` that have other names stay as they are.

    Raises:
        InputError: if ``path`` cannot be made.
    """
    make_folder(path)
    with tempfile.TemporaryDirectory(prefix=".part-", dir=path) as hidden:
        yield Path(hidden)
        for file in sorted(Path(hidden).rglob("*")):
            if file.is_file():
                target = path / file.relative_to(hidden)
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(file, target)

"""Who does a piece of work on a shared folder, without file locks.

A claim is a file ``NAME.G.claim`` that is created with ``O_EXCL``, which is atomic on local file systems and on NFS
from version 3 on, where ``flock`` is not dependable. G counts those who had the work: who finds the latest holder dead
creates the next file, and of two who do so one succeeds. No claim is ever removed or renamed, so a slow contender
cannot take away the claim of a new holder, and a holder that was only slow sees that it was replaced. What a holder
writes bears its number: no two processes ever write one file.

A holder is dead if its process is gone (same machine and process namespace), or if its beat, a file it renews every
few seconds, did not change while a contender watched. No clocks of two machines are compared.
"""

import json
import os
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from eval.instruments.record import write_whole
from llava.errors import InputError

BEAT = 5.0  # seconds between two beats
PATIENCE = 120.0  # seconds without a beat; above the 60 for which NFS clients keep attributes


def _place() -> str:
    """Machine and process namespace: where a process number means the same process."""
    space = ""
    with suppress(OSError):
        space = os.readlink("/proc/self/ns/pid")
    return f"{socket.gethostname()} {space}".strip()


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""


class WorkTaken(InputError):
    """A living process has the work."""


class WorkClaim:
    """The right to do one piece of work, held from construction to :meth:`release`.

    Args:
        folder: where claims lie; made if absent.
        name: of the work.
        patience: seconds without a beat after which a holder elsewhere is taken for dead.

    Raises:
        WorkTaken: if a living process holds it.
        InputError: if the folder cannot be written.
    """

    def __init__(self, folder: Path, name: str, patience: float = PATIENCE) -> None:
        self.folder, self.name = folder, name
        self._stop = threading.Event()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self.turn = self._take(patience)
        except OSError as error:
            raise InputError(f"{folder} cannot be written ({error.strerror}): name another folder") from None
        self._beats = threading.Thread(target=self._beat, daemon=True)
        self._beats.start()

    def _path(self, turn: int, kind: str) -> Path:
        return self.folder / f"{self.name}.{turn}.{kind}"

    def _take(self, patience: float) -> int:
        turn = 0
        while True:
            path = self._path(turn, "claim")
            try:
                with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY), "w") as file:
                    file.write(json.dumps({"place": _place(), "pid": os.getpid()}))
                    file.flush()
                    os.fsync(file.fileno())
                return turn
            except FileExistsError:
                later = self._path(turn + 1, "claim").exists()
                if not later and not self._path(turn, "done").exists():
                    self._see_dead(turn, patience)
                turn += 1

    def _see_dead(self, turn: int, patience: float) -> None:
        """Return once the holder is known to be dead or done.

        Raises:
            WorkTaken: it lives.
        """
        first, end = _read(self._path(turn, "beat")), time.monotonic() + patience
        while True:
            try:
                holder = json.loads(_read(self._path(turn, "claim")))
            except ValueError:  # created and not yet written, or killed in between: then no beat comes
                holder = {"place": "?", "pid": 0}
            here = holder["place"] == _place()
            if self._path(turn, "done").exists() or (here and not _alive(holder["pid"])):
                return
            if here or _read(self._path(turn, "beat")) != first:
                raise WorkTaken(
                    f"{self.name} is being done by process {holder['pid']} on {holder['place'].partition(' ')[0]}: "
                    "leave it to that one, or stop it first"
                )
            if time.monotonic() >= end:
                return
            time.sleep(min(1.0, patience / 4))

    def _beat(self) -> None:
        count = 0
        while True:
            count += 1
            with suppress(OSError, InputError):  # a beat that fails counts as none
                write_whole(self._path(self.turn, "beat"), str(count))
            if self._stop.wait(BEAT):
                return

    def check(self) -> None:
        """See that the work is still this process'.

        Raises:
            InputError: another process took this one for dead.
        """
        if self._path(self.turn + 1, "claim").exists():
            raise InputError(f"another process took over {self.name}, this one was silent too long: it goes on there")

    def release(self) -> None:
        """Let others do the work again."""
        self._stop.set()
        self._beats.join()
        self._path(self.turn, "done").touch()

    def __enter__(self) -> "WorkClaim":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.release()

"""The log of answers: one line a question, on disk before the next question begins."""

import fcntl
import json
import os
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import TracebackType
from typing import Any

from llava.errors import InputError


@dataclass(frozen=True)
class Entry:
    """What one question gave.

    Attributes:
        task: leaf task.
        doc_id: number of the question in its split.
        key: hash of all that the answer depends on; None for a bad video, which is never logged.
        prompt: the question as the stock model is given it.
        video: the file.
        video_sha256: of its content; None if there is none.
        answer: the model's text; None for a bad video.
        tokens: visual tokens ``before`` compression, ``before_llm``, ``inside_llm`` (behind the last inner stage) and
            ``layer_mean`` over the decoder's layers.
        reader: who decoded the video.
        frames: how many frames were shown to the model.
        frames_sha256: of their indices.
        seconds: from reading the video to the answer.
        bad_video: why the video could not be used; None for a good one.
    """

    task: str
    doc_id: int
    key: str | None
    prompt: str
    video: str | None
    video_sha256: str | None = None
    answer: str | None = None
    tokens: dict[str, float] | None = None
    reader: str | None = None
    frames: int | None = None
    frames_sha256: str | None = None
    seconds: float = 0.0
    bad_video: str | None = None


@dataclass
class Served:
    """The answers of one process and what they were made with.

    Attributes:
        setup: what every answer depends on besides the question and the method.
        setup_key: hash of ``setup`` and the method's settings.
        config: the run's configuration, every field spelled out.
        checkpoint: hashes of its files.
        entries: by (task, doc_id).
        computed: questions answered by the model in this run.
        resumed: questions whose answer was in the log.
    """

    setup: dict[str, Any]
    setup_key: str
    config: dict[str, Any]
    checkpoint: dict[str, Any]
    entries: dict[tuple[str, int], Entry] = field(default_factory=dict)
    computed: int = 0
    resumed: int = 0


_NAMES = {entry.name for entry in fields(Entry)}


def _parse(line: bytes) -> Entry | None:
    """An entry, or None for a line that was not written to its end."""
    try:
        raw: Any = json.loads(line)
    except ValueError:
        return None
    return Entry(**raw) if isinstance(raw, dict) and set(raw) == _NAMES else None


class AnswerLog:
    """Answers by key. One process writes one file; the files of all processes of a folder are read.

    Args:
        folder: where the files lie; made if absent.
        rank: number of the process.

    Raises:
        InputError: if another process writes this file now, or the folder cannot be made.
    """

    def __init__(self, folder: Path, rank: int = 0) -> None:
        self.folder = folder
        path = folder / f"rank-{rank}.jsonl"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = path.open("ab")
        except OSError as error:
            raise InputError(f"{path} cannot be written ({error.strerror}): name another folder") from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise InputError(f"{path} is being written by another run: wait for it, or name another folder") from None
        self._entries: dict[str, Entry] = {}
        for other in sorted(folder.glob("rank-*.jsonl")):
            for entry in map(_parse, other.read_bytes().splitlines()):
                if entry is not None and entry.key is not None:
                    self._entries[entry.key] = entry
        self._end_torn_line(path)

    def _end_torn_line(self, path: Path) -> None:
        """What is appended to half a line would be lost with it."""
        content = path.read_bytes()
        if content and not content.endswith(b"\n"):
            self._write(b"\n")

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._file.flush()
        os.fsync(self._file.fileno())

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: str) -> Entry | None:
        """The logged answer, or None."""
        return self._entries.get(key)

    def add(self, entry: Entry) -> None:
        """Log an answer; it is on the disk when this returns."""
        assert entry.key is not None
        self._write(json.dumps(asdict(entry), ensure_ascii=False).encode() + b"\n")
        self._entries[entry.key] = entry

    def close(self) -> None:
        """Let others write the file."""
        self._file.close()

    def __enter__(self) -> "AnswerLog":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

"""Records of a benchmark run: one ``.npz`` a question, drawn by ``python -m holitom.show --record FILE``."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eval.benchmarks.lmms.answer_log import Entry
from holitom.record.file import load_meta
from holitom.record.prompt import Record
from holitom.record.saving import save_record, saved_copy
from holitom.run_facts import frame_times
from llava.errors import InputError
from llava.video import VideoClip

RECORDS = "records"
_THUMBNAIL = 192  # pixels: some 4 KB a frame


def record_name(task: str, doc_id: int) -> str:
    """File of a question's record; numbers are those of the leaf task."""
    return f"{task}-{doc_id}.npz"


class RecordFolder:
    """The records of one run.

    Args:
        folder: where they lie; made with the first one.
        facts: what every record says about the run.
    """

    def __init__(self, folder: Path, facts: Mapping[str, Any]) -> None:
        self.folder, self.facts = folder, dict(facts)

    def has(self, task: str, doc_id: int, key: str) -> bool:
        """Whether the question's record is there and was made with the answer of this key."""
        try:
            return load_meta(self.folder / record_name(task, doc_id)).get("key") == key
        except InputError:
            return False

    def add(self, record: Record, clip: VideoClip, entry: Entry) -> None:
        """Save what the latest prompt went through."""
        copy = saved_copy(record, [clip.frames], frame_times(clip), size=_THUMBNAIL)
        asked = {"video": clip.path.name, "question": entry.prompt, "answer": entry.answer}
        place = {"task": entry.task, "doc_id": entry.doc_id, "key": entry.key, "video_sha256": entry.video_sha256}
        save_record(copy, self.folder / record_name(entry.task, entry.doc_id), **self.facts, **asked, **place)


def with_records(samples: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Samples with the file of each record, relative to the result's folder; None for a bad video."""
    return [
        {
            **sample,
            "record": None
            if sample["bad_video"] is not None
            else f"{RECORDS}/{record_name(sample['subtask'], sample['doc_id'])}",
        }
        for sample in samples
    ]

"""A slice of the fuzz of the video reader: no process dies, and what checksums guard is never wrong."""

from tests.fuzz_videos import fuzz


def test_a_slice() -> None:
    found = fuzz(16, seed=3, kinds=("h264.mkv", "h264.mp4", "mpeg4.avi", "mjpeg.avi"))
    assert found["failed_files"] == []
    assert found["kinds"]["h264.mkv"].get("wrong", 0) == 0
    assert found["refused"] >= 8

"""Six clips of the matrix of video readers; all of it is ``python -m tests.video_matrix``."""

import shutil

import pytest

from tests.video_matrix import matrix

pytestmark = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="the command ffmpeg (the judge) is missing")
SLICE = (
    "mkv h264 open",
    "avi h264 b-frames",
    "ts h264 long",
    "mpg mpeg2 b-frames",
    "webm vp8 hidden",
    "flv h264 closed",
)


@pytest.mark.parametrize("kind", SLICE)
def test_right_or_refused(kind: str) -> None:
    assert matrix([kind], ["pyav"]) == {kind: {"pyav": "right"}}

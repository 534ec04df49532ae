"""Peak memory of reading: small clips, one refused."""

import json
from pathlib import Path

import pytest

from eval.efficiency import reading_memory
from eval.efficiency.reading_memory import main, read, write_large


def test_rows(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading_memory, "LONG_SECONDS", 1)
    monkeypatch.setattr(reading_memory, "read_apart", read)  # a process of its own takes seconds to start
    main(["--large", "2048", "--frames", "4", "--long", "8"])
    large, long = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]
    assert (large["frames"], large["refused"]) == (4, None)
    assert large["returned_mb"] == 4 * 2048 * 2048 * 3 / 1e6
    assert long["returned_mb"] == 8 * 640 * 360 * 3 / 1e6
    assert large["peak_mb"] >= 0.9 * large["returned_mb"]  # an array too large for memory that is there already


def test_a_picture_beyond_the_bound_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "9000.avi"
    write_large(path, 9000, 1)
    found = read(path, 8)
    assert "(the bound)" in found["refused"]
    assert found["returned_mb"] == 0
    assert found["peak_mb"] < 9000 * 9000 / 1e6  # not even one plane of one picture

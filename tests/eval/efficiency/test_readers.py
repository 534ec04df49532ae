"""The benchmark of video readers: every reader once on a short clip."""

import json

import pytest

from eval.efficiency.readers import main


def test_rows(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = "--kinds mpeg4.avi --seconds 1 --frames 4 --readers pyav --size 64 48 --repetitions 1"
    main(arguments.split(" "))
    (row,) = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]
    assert (row["kind"], row["frames"], row["reader"]) == ("mpeg4.avi", 4, "pyav")
    assert row["wall_ms"] > 0

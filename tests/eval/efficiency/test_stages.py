"""The benchmark of both stages: a run at small sizes, and its plain steps against the library."""

import json
from importlib import metadata

import pytest
import torch

from eval.efficiency import stages
from holitom.methods.holitom.inner_merging import merge_into_nearest


def test_quick_run_gives_every_cell(capsys):
    stages.main(["--quick", "--repetitions", "1", "--dtypes", "float32", "bfloat16"])
    rows = json.loads(capsys.readouterr().out.splitlines()[-1])["cells"]
    assert len(rows) == 4 + 16
    inner = [row for row in rows if row["stage"] == "inner"]
    assert all(row["other_choices"]["ours"] == 0 for row in inner)
    assert all(row["largest_error"]["ours"] < 0.05 for row in inner)
    assert all(row["cpu_ratio"] > 0 for row in rows)
    still = [row for row in rows if "static scene" in row["cell"]]
    assert still
    assert all(row["static_tokens"] > 0 for row in still)
    real = [row["cell"].split()[-1] for row in rows if row.get("real")]
    assert real == ["carphone_pristine.mp4"] * 4 + ["bikes.mp4"] * 4


def test_one_stage_without_clips(capsys, monkeypatch):
    def absent(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", absent)
    quick = ["--quick", "--repetitions", "1", "--dtypes", "float32"]
    for more, cells in ((["--only", "inner"], 2), (["--only", "outer", "--videos"], 4)):
        stages.main([*quick, *more])
        assert len(json.loads(capsys.readouterr().out.splitlines()[-1])["cells"]) == cells
    with pytest.raises(SystemExit):
        stages.main([*quick, "--only", "inner", "--videos", "a.mp4"])
    assert "leave out --only inner" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        stages.main([*quick, "--videos", "absent.mp4"])
    said = capsys.readouterr()
    assert said.out == "", "no cell was measured before"
    assert "absent.mp4: no such file" in said.err
    with pytest.raises(SystemExit):
        stages.main(quick)
    assert "pass --videos FILE ..., or --videos alone for none" in capsys.readouterr().err


def test_plain_inner_is_the_sequential_merge():
    draw = torch.Generator().manual_seed(0)
    hidden, scores = torch.randn(60, 16, generator=draw), torch.rand(60, generator=draw)
    merged, source = stages.plain_inner(hidden, scores, 10, 51)
    ours = merge_into_nearest(hidden, scores, [(10, 51)], 0.5)
    assert torch.equal(source, ours.source)
    assert torch.allclose(merged, ours.hidden, atol=1e-5)

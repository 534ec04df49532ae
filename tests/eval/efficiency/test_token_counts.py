"""Measured token counts: every row of a folder, beside the paper's nominal count where it has one."""

import json
from pathlib import Path

import pytest

from eval.efficiency.token_counts import config_files, main, nominal, stages
from holitom.settings import load_config
from llava.errors import InputError

CONFIGS = Path("configs/llava_onevision_7b")


@pytest.mark.parametrize(
    ("name", "want"),
    [
        ("vanilla", "6272"),
        ("fastv", "6272 > 1254"),
        ("pdrop", "6272 > 3136 > 1568 > 784"),
        ("dycoke_r25", "1568"),
        ("visionzip_r15", "960"),
        ("prunevid_r10", "640"),
        ("fastvid_r20", "1280"),
        ("holitom_r10", "640 > 320"),
        ("holitom_without_inner_r25", "1568"),
        ("uniform_r25", None),
    ],
)
def test_nominal_counts_are_those_of_the_paper(name: str, want: str | None) -> None:
    config = load_config(CONFIGS / f"{name}.yaml")
    assert nominal(config, 8) is None
    found = nominal(config, 32)
    assert (None if found is None else stages(found)) == want


def test_every_row_of_the_main_table_has_a_file() -> None:
    names = {path.stem for path in CONFIGS.glob("*.yaml")}
    rows = {"vanilla", "fastv", "pdrop", "dycoke_r25"}
    rows |= {
        f"{method}_r{ratio}"
        for method in ("visionzip", "prunevid", "fastvid", "holitom", "holitom_without_inner")
        for ratio in (25, 20, 15, 10)
    }
    assert len(rows) == 24
    assert rows <= names


def test_measured_beside_nominal(capsys) -> None:
    main([str(CONFIGS / f"{name}.yaml") for name in ("visionzip_r25", "holitom_r10")] + ["--frames", "8"])
    rows = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]
    assert rows[0]["measured"] == "400"
    before, after = (int(count) for count in rows[1]["measured"].split(" > "))
    assert 0 < after < before < 400
    assert rows[0]["measured_tflops"] > rows[1]["measured_tflops"]


@pytest.mark.parametrize("name", ["fastv", "pdrop"])
def test_inner_methods_are_counted_without_the_newline(capsys, name: str) -> None:
    """At 4 x 196 the first layers see 784 visual tokens; whether a stage kept the newline is looked up, not assumed."""
    main([str(CONFIGS / f"{name}.yaml"), "--frames", "4"])
    counts = [
        int(part) for part in json.loads(capsys.readouterr().out.splitlines()[-1])["rows"][0]["measured"].split(" > ")
    ]
    want = {"fastv": [784, 157], "pdrop": [784, 392, 196, 98]}[name]
    assert counts[0] == want[0]
    assert all(0 <= most - count <= 1 for count, most in zip(counts, want, strict=True))


def test_llava_video_is_measured_at_its_own_size(capsys) -> None:
    """13 x 13 tokens and grid newlines, which are not counted; 28 layers and the printed FLOPs of the 7B sizes."""
    folder = Path("configs/llava_video_7b")
    main([str(folder / f"{name}.yaml") for name in ("vanilla", "visionzip_r15", "fastv")] + ["--frames", "4"])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (result["model"], result["frames"], result["tokens_per_frame"]) == ("LLaVA-Video-7B", 4, 169)
    vanilla, visionzip, fastv = (row["measured"] for row in result["rows"])
    assert (vanilla, visionzip) == (str(4 * 169), str(4 * 26))
    before, after = map(int, fastv.split(" > "))
    assert before == 4 * 169
    assert 0 < after <= round(0.2 * 4 * 13 * 14)  # of the span with its newlines, some of which may be kept
    assert all(row["nominal"] is None for row in result["rows"])


def test_folders_and_mistakes(tmp_path: Path, capsys) -> None:
    assert len(config_files([CONFIGS])) >= 24
    with pytest.raises(InputError, match="holds no"):
        config_files([tmp_path])
    with pytest.raises(SystemExit) as end:
        main([str(tmp_path / "none.yaml")])
    assert end.value.code == 2
    assert "none.yaml" in capsys.readouterr().err

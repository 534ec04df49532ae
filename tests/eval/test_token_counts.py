"""Measured token counts: every row of a folder, beside the paper's nominal count where it has one."""

import json
from pathlib import Path

import pytest

from eval.token_counts import config_files, main, nominal, stages
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
    path = CONFIGS / f"{name}.yaml"
    found = nominal(path, load_config(path))
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


def test_folders_and_mistakes(tmp_path: Path, capsys) -> None:
    assert len(config_files([CONFIGS])) >= 24
    with pytest.raises(InputError, match="holds no"):
        config_files([tmp_path])
    with pytest.raises(SystemExit) as end:
        main([str(tmp_path / "none.yaml")])
    assert end.value.code == 2
    assert "none.yaml" in capsys.readouterr().err

"""Shipped configurations go by their names, from any folder; what is no name is told what there is."""

from pathlib import Path

import pytest

from holitom import load_compressor, load_config
from holitom.shipped import CONFIGS, TINY, config_file, config_names
from llava.errors import InputError


def test_a_name_is_its_file_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path in CONFIGS.glob("*/*_r10.yaml"):
        assert load_config(f"{path.parent.name}/{path.stem}") == load_config(path)
    assert load_compressor("llava_onevision_7b/holitom_r10", ["inner=null"]).inner is None


def test_every_configuration_of_a_run_has_a_name() -> None:
    assert len(config_names()) == len(set(config_names())) > 100
    assert all(load_config(name) for name in config_names())
    assert (TINY / "config.json").is_file()


def test_a_file_goes_before_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    own = Path("tiny/vanilla")
    own.parent.mkdir()
    own.write_text((CONFIGS / "tiny/fastv.yaml").read_text())
    assert load_config(own).method == load_config("tiny/vanilla").method == "fastv"
    assert load_config(CONFIGS / "tiny/vanilla.yaml").method is None


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("llava_onevision_7b/holitom_r11", "llava_onevision_7b has .*holitom_r10, holitom_r15.*vanilla"),
        ("llava_onevision_8b/holitom_r10", "names are MODEL/ROW, as llava_.*/holitom_r10; models are .*, tiny$"),
        ("configs/tiny/fastv.yaml", "the name is tiny/fastv$"),
        ("tiny/fastv.yaml", "the name is tiny/fastv$"),
        ("sweeps/ablate_mask", "models are"),
        ("../configs/tiny/fastv", "models are"),
        ("tiny", "tiny has .*fastv"),
        ("", "models are"),
    ],
)
def test_what_is_no_name_is_told_what_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, hint: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=hint) as error:
        config_file(name)
    assert repr(name) in str(error.value)
    assert "\n" not in str(error.value)

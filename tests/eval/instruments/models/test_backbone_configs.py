"""The rows for the other checkpoints: LLaVA-Video-7B and LLaVA-OneVision-72B as the paper has them, 0.5B scaled."""

from pathlib import Path

import pytest

from eval.efficiency.token_counts import config_files, geometry_of, nominal, stages
from eval.paper.formula import ONEVISION_05B, ONEVISION_72B, VIDEO_7B
from eval.paper.rows import other_backbone_rows
from holitom.settings import load_config
from llava.errors import InputError

FOLDERS = {
    "llava_video_7b": ("lmms-lab/LLaVA-Video-7B-Qwen2", VIDEO_7B, 18),
    "llava_onevision_72b": ("lmms-lab/llava-onevision-qwen2-72b-ov-sft", ONEVISION_72B, 60),
    "llava_onevision_0.5b": ("lmms-lab/llava-onevision-qwen2-0.5b-ov", ONEVISION_05B, 15),
}
FILES = {"Vanilla": "vanilla", "FastV": "fastv", "PDrop": "pdrop"}
FILES |= {"HoliTom": "holitom_r15", "HoliTom (w/o M)": "holitom_without_inner_r15"}


def files(folder: str) -> list[Path]:
    return config_files([Path("configs") / folder])


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_file_is_for_the_checkpoint_of_its_folder(folder: str) -> None:
    pretrained, geometry, merge_layer = FOLDERS[folder]
    configs = {path.stem: load_config(path) for path in files(folder)}
    assert {(each.model.pretrained, each.model.num_frames) for each in configs.values()} == {
        (pretrained, geometry.frames)
    }
    assert geometry_of(list(configs.values())) == geometry
    inner = {each.compressor.inner for name, each in configs.items() if name.startswith("holitom_r")}
    assert {stage.merge_layer for stage in inner} == {merge_layer}
    for name, each in configs.items():
        settings = each.as_dict()["compressor"] or {}
        layers = [settings.get("prune_layer"), *settings.get("drop_layers", [])]
        assert all(layer < geometry.layers for layer in layers if layer is not None), name
        if "retain_ratio" in settings:
            assert round(100 * settings["retain_ratio"]) == int(name.rpartition("_r")[2])


def test_layers_of_the_small_model_are_those_of_the_table_at_the_same_depth() -> None:
    scale = ONEVISION_05B.layers / 28
    assert round(18 * scale) == FOLDERS["llava_onevision_0.5b"][2]
    drops = load_config("configs/llava_onevision_0.5b/pdrop.yaml").compressor.drop_layers
    assert drops == [round(layer * scale) for layer in (2, 7, 14)]


@pytest.mark.parametrize("row", other_backbone_rows(), ids=lambda row: f"{row.model.name} {row.method}")
def test_every_row_of_the_second_table_has_a_file_with_its_counts(row) -> None:
    folder = {VIDEO_7B: "llava_video_7b", ONEVISION_72B: "llava_onevision_72b"}[row.model]
    config = load_config(Path("configs") / folder / f"{FILES[row.method]}.yaml")
    assert nominal(config, row.model.frames) == list(row.tokens_per_layer)


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_file_says_what_it_is(folder: str) -> None:
    for path in files(folder):
        comment = path.read_text().partition("model:")[0]
        assert comment.startswith("# ")
        assert FOLDERS[folder][1].name in comment.replace("\n# ", " "), path


def test_visionzip_keeps_the_nominal_count_of_a_frame() -> None:
    """26 of 169 tokens: ceil(0.15 x 169)."""
    assert load_config("configs/llava_video_7b/visionzip_r15.yaml").compressor.tokens_per_frame == 26


def test_one_checkpoint_at_a_time() -> None:
    both = [load_config(files(folder)[0]) for folder in FOLDERS]
    with pytest.raises(InputError, match="one checkpoint at a time"):
        geometry_of(both)
    other = load_config(files("llava_video_7b")[0], ["model.pretrained=somebody/else"])
    with pytest.raises(InputError, match="sizes of somebody/else are not known"):
        geometry_of([other])


def test_stages_of_the_72b_row() -> None:
    config = load_config("configs/llava_onevision_72b/holitom_r15.yaml")
    assert stages(nominal(config, 32) or []) == "960 > 480"

"""The paper's numbers: complete, consistent with each other, and each row with a configuration."""

import pytest

from eval.paper.config_names import config_stem
from eval.paper.grids import SWEEPS, load_grid, paper_grids, row_of
from eval.paper.rows import MODELS, main_rows, other_backbone_rows, rows_of, scores_of
from eval.paper.scores import EFFICIENCY, MAIN_SCORES, OTHER_BACKBONES
from holitom.settings import load_config
from holitom.shipped import CONFIGS


def test_every_row_has_scores_in_the_order_of_the_paper() -> None:
    assert list(MAIN_SCORES) == [row.key for row in main_rows()]


def test_the_second_table_s_models_are_those_of_its_rows() -> None:
    assert list(OTHER_BACKBONES) == list(dict.fromkeys(row.model.name for row in other_backbone_rows()))


@pytest.mark.parametrize("row", [key for key, scores in MAIN_SCORES.items() if scores.average is not None])
def test_averages_and_percentages_follow_from_the_scores(row: tuple[str, int]) -> None:
    """A mistyped score would break one of these; the paper rounds to one decimal, from scores rounded before."""
    scores = MAIN_SCORES[row]
    four = [scores.mvbench, scores.egoschema, scores.longvideobench, scores.videomme]
    assert sum(four) / 4 == pytest.approx(scores.average, abs=0.0751)
    assert 100 * scores.average / 58.4 == pytest.approx(scores.percent, abs=0.1)


def test_rows_without_egoschema_are_fastvid_s() -> None:
    missing = {row for row, scores in MAIN_SCORES.items() if scores.egoschema is None}
    assert missing == {row for row in MAIN_SCORES if row[0] == "FastVID"}


@pytest.mark.parametrize("model", MODELS)
def test_every_row_has_a_configuration_that_is_recognised(model: str) -> None:
    for row in rows_of(model):
        path = CONFIGS / model / f"{config_stem(*row.key)}.yaml"
        assert row_of(model, load_config(path).as_dict()) == row
    vanilla = load_config(CONFIGS / model / "vanilla.yaml")
    assert vanilla.method is None
    assert vanilla.model.pretrained.endswith(MODELS[model][1])
    assert vanilla.model.num_frames == rows_of(model)[0].model.frames


def test_other_settings_are_no_row_of_the_paper() -> None:
    path = CONFIGS / "llava_onevision_7b" / "holitom_r15.yaml"
    for change in ("outer.similarity_threshold=0.7", "inner.causal=false", "model.num_frames=16"):
        assert row_of("llava_onevision_7b", load_config(path, [change]).as_dict()) is None


def test_scores_are_known_for_the_main_table_alone() -> None:
    assert all(scores_of(row) for row in main_rows())
    assert all(scores_of(row) is None for row in rows_of("llava_video_7b"))
    assert scores_of(None) is None


def test_the_figure_s_speed_ups_are_those_the_paper_states() -> None:
    def total(row: tuple[str, int]) -> int:
        return EFFICIENCY[row].tower_ms + EFFICIENCY[row].other_ms + EFFICIENCY[row].llm_ms

    assert total(("Vanilla", 100)) / total(("HoliTom", 10)) == pytest.approx(2.28, abs=0.01)
    assert total(("Vanilla", 100)) / total(("HoliTom (w/o M)", 10)) == pytest.approx(2.22, abs=0.01)
    decode = [EFFICIENCY[row].decode_tokens_per_second for row in (("HoliTom", 10), ("Vanilla", 100))]
    assert decode[0] / decode[1] == pytest.approx(1.32, abs=0.01)


def test_the_main_grids_hold_every_row() -> None:
    points = {point.name for grid in paper_grids() if grid.table != "ablation" for point in grid.points}
    wanted = {f"{model}/{config_stem(*row.key)}" for model in MODELS for row in rows_of(model)}
    assert wanted <= points


def test_the_mask_and_the_72b_s_inner_stage_are_what_their_scripts_say() -> None:
    mask = load_grid(SWEEPS / "ablate_mask.yaml")
    causal = [point.settings().compressor.inner.causal for point in mask.points if point.settings().compressor]
    assert causal == [True, False] * 4
    large = load_grid(SWEEPS / "eval_ov-72b_holitom.yaml").points[-1].settings().compressor
    assert (large.inner.merge_layer, large.inner.merge_ratio) == (60, 0.5)

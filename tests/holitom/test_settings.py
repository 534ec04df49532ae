"""Configurations: every value out of range and every misspelt key is named, with bound and remedy."""

from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pytest
import yaml

from holitom import InnerConfig, OuterConfig, TowerConfig, available_methods, load_compressor, load_config
from holitom.methods.holitom import HolitomConfig
from holitom.settings import RunConfig, parse_config
from llava.errors import InputError

CONFIGS = sorted(
    path for path in Path("configs").rglob("*.yaml") if path.parent.name not in {"sweeps", "launch", "ablations"}
)
GOOD = {
    "model": {"pretrained": None, "num_frames": 8, "conv_template": "qwen_1_5"},
    "compressor": {
        "method": "holitom",
        "outer": {"retain_ratio": 0.1, "similarity_threshold": 0.65},
        "inner": {"merge_layer": 4, "merge_ratio": 0.5},
    },
}


def write(tmp_path: Path, raw: object) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(raw))
    return path


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("retain_ratio", value) for value in (0, -0.1, 1.01, float("nan"), float("inf"), True, "0.2", None)],
        *[("similarity_threshold", value) for value in (-1.1, 1.1, float("nan"), "high")],
        *[("center_weight", value) for value in (-0.1, 1.5)],
        *[("neighbors", value) for value in (0, 2.5, True)],
        *[("max_segment_frames", value) for value in (0, -3, 1.5)],
        *[("contextual_ratio", value) for value in (-0.1, 1.1)],
        *[("segmentation", value) for value in ("best", None, 1)],
        *[("static_rule", value) for value in ("mean", False)],
        *[("plain_mean", value) for value in (1, "yes")],
    ],
)
def test_outer_bounds(field: str, value: object) -> None:
    with pytest.raises(InputError) as error:
        OuterConfig(**{field: value})
    message = str(error.value)
    assert field in message
    assert repr(value) in message
    assert "must be" in message


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("merge_layer", value) for value in (0, -1, 1.5, True, "18")],
        *[("merge_ratio", value) for value in (1, 1.0, -0.1, float("nan"), "half")],
        ("merge_rule", "median"),
        ("causal", 1),
    ],
)
def test_inner_bounds(field: str, value: object) -> None:
    with pytest.raises(InputError, match=field):
        InnerConfig(**{field: value})


def test_limits_that_are_allowed() -> None:
    OuterConfig(retain_ratio=1, similarity_threshold=-1, center_weight=0, neighbors=1, contextual_ratio=1)
    OuterConfig(similarity_threshold=1, center_weight=1, max_segment_frames=1)
    InnerConfig(merge_layer=1, merge_ratio=0)


@pytest.mark.parametrize("path", [path for path in CONFIGS if "72b" not in str(path)], ids=str)
def test_the_default_layer_is_that_of_the_shipped_files(path: Path) -> None:
    """The paper names a layer of its own for the 72B: 60 of 80."""
    layers = {"llava_onevision_0.5b": 24, "llava_onevision_7b": 28, "llava_video_7b": 28, "tiny": 8}[path.parent.name]
    inner = getattr(load_config(path).compressor, "inner", None)
    if isinstance(inner, InnerConfig):
        assert InnerConfig().layer_in(layers) == inner.merge_layer


def test_a_named_layer_is_kept_whatever_the_depth() -> None:
    assert InnerConfig(18).layer_in(8) == 18
    assert [InnerConfig().layer_in(layers) for layers in (1, 2, 28, 80)] == [1, 1, 18, 51]


def test_configurations_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        OuterConfig().retain_ratio = 0.5  # type: ignore[misc]


def test_good_file(tmp_path) -> None:
    config = load_config(write(tmp_path, GOOD))
    assert isinstance(config, RunConfig)
    assert config.model.num_frames == 8
    assert config.compressor == HolitomConfig(OuterConfig(0.1, 0.65), InnerConfig(4, 0.5))


def test_null_stages_and_no_compressor(tmp_path) -> None:
    without = {**GOOD, "compressor": {"method": "holitom", "outer": {"retain_ratio": 0.2}, "inner": None}}
    assert load_config(write(tmp_path, without)).compressor.inner is None
    vanilla = load_config(write(tmp_path, {**GOOD, "compressor": None}))
    assert vanilla.build() is None
    with pytest.raises(InputError, match="nothing to apply"):
        load_compressor(write(tmp_path, {**GOOD, "compressor": None}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"compressor": {"method": "holitom", "outer": {"retain_rate": 0.1}}},
            "unknown key compressor.outer.retain_rate; OuterConfig has retain_ratio",
        ),
        ({"compressor": {"method": "holitom", "HOLITOM_k": 18}}, "unknown key compressor.HOLITOM_k"),
        ({"compressor": {"method": "holytom"}}, "method = 'holytom' is unknown"),
        ({"compressor": {"outer": {}}}, "compressor.method is missing"),
        ({"compressor": {"method": "holitom", "outer": {"retain_ratio": 2}}}, "retain_ratio = 2.0"),
        (
            {"compressor": {"method": "holitom", "outer": {"retain_ratio": "10%"}}},
            "compressor.outer.retain_ratio = '10%' has the wrong type",
        ),
        ({"compressor": {"method": "holitom", "outer": 0.1}}, "compressor.outer = 0.1 is not a mapping"),
        (
            {"compressor": {"method": "holitom", "outer": {"retain_ratio": None}}},
            "compressor.outer.retain_ratio is null",
        ),
        ({"compressor": {"method": "holitom", "outer": {"neighbors": True}}}, "compressor.outer.neighbors = True"),
        ({"compressor": {"method": "holitom", "outer": None, "inner": None}}, "both null"),
        ({"model": {"frames": 8}}, "unknown key model.frames"),
        ({"model": {"num_frames": 0}}, "num_frames = 0"),
        ({"modle": {}}, "unknown key modle"),
        ({"compressor": {"method": [1]}}, "compressor.method = [1]"),
    ],
)
def test_wrong_files(tmp_path, change: dict, message: str) -> None:
    path = write(tmp_path, {**GOOD, **change})
    with pytest.raises(InputError) as error:
        load_config(path)
    assert message in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_absent_and_broken_files(tmp_path) -> None:
    with pytest.raises(InputError, match="no configuration file"):
        load_config(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("a: [1,")
    with pytest.raises(InputError, match="no readable YAML"):
        load_config(tmp_path / "bad.yaml")
    (tmp_path / "twice.yaml").write_text("model: {num_frames: 8}\nmodel: {num_frames: 4}\n")
    with pytest.raises(InputError, match="key model stands twice"):
        load_config(tmp_path / "twice.yaml")
    (tmp_path / "empty.yaml").write_text("")
    with pytest.raises(InputError, match="empty"):
        load_config(tmp_path / "empty.yaml")


def test_overrides(tmp_path) -> None:
    path = write(tmp_path, GOOD)
    config = load_config(path, ["outer.retain_ratio=0.25", "inner=null", "model.num_frames=4"])
    assert config.compressor == HolitomConfig(OuterConfig(0.25, 0.65), None)
    assert config.model.num_frames == 4
    for assignment, message in (
        ("outer.retain_ratio", "key.path=value"),
        ("outer.retain_ratio=[", "no readable YAML"),
        ("outer.x=1", "unknown key compressor.outer.x"),
    ):
        with pytest.raises(InputError, match=message):
            load_config(path, [assignment])


@pytest.mark.parametrize("path", CONFIGS, ids=str)
def test_shipped_files_spell_every_field(path: Path) -> None:
    raw = yaml.safe_load(path.read_text())
    assert load_config(path).as_dict() == raw


ROWS = {
    "vanilla": None,
    "fastv": {"prune_layer": 2, "prune_ratio": 0.8},
    "pdrop": {"drop_layers": [2, 7, 14], "keep_ratios": [0.5, 0.25, 0.125]},
    "dycoke_r25": {"merge_ratio": 1.0, "reference_groups": False, "similarity_order": False, "decode": None},
    **{f"visionzip_r{r}": {"tokens_per_frame": n} for r, n in ((25, 50), (20, 40), (15, 30), (10, 20))},
    **{f"prunevid_r{r}": {"retain_ratio": r / 100, "cluster_ratio": None, "inner": None} for r in (25, 20, 15, 10)},
    **{f"fastvid_r{r}": {"retain_ratio": r / 100, "min_segments": 8} for r in (25, 20, 15, 10)},
    **{
        f"{name}_r{r}": {"retain_ratio": r / 100}
        for name in ("uniform", "random", "vidcom2", "evs")
        for r in (25, 20, 15, 10)
    },
    **{f"flashvid_r{r}": {"retain_ratio": r / 100, "expansion": 1.25, "prune_layer": 20} for r in (25, 20, 15, 10)},
    **{f"earlytom_r{r}": {"retain_ratio": r / 100, "tower_layers": [8, 21, 23]} for r in (25, 20, 15, 10)},
}


@pytest.mark.parametrize("name", ROWS)
def test_rows_of_the_main_table(name: str) -> None:
    config = load_config(f"configs/llava_onevision_7b/{name}.yaml")
    assert (config.model.num_frames, config.model.pretrained) == (32, "lmms-lab/llava-onevision-qwen2-7b-ov")
    settings = config.as_dict()["compressor"]
    if ROWS[name] is None:
        assert settings is None
        return
    assert settings["method"] == name.partition("_r")[0]
    assert {key: settings[key] for key in ROWS[name]} == ROWS[name]


@pytest.mark.parametrize("ratio", [25, 20, 15, 10])
@pytest.mark.parametrize("inner", [True, False])
def test_rows_of_holitom(ratio: int, inner: bool) -> None:
    """The threshold is 0.80, and 0.65 at 10 %; the inner stage halves at layer 18."""
    name = f"holitom_r{ratio}" if inner else f"holitom_without_inner_r{ratio}"
    config = load_config(f"configs/llava_onevision_7b/{name}.yaml").compressor
    assert config.outer == OuterConfig(ratio / 100, 0.65 if ratio == 10 else 0.8)
    assert config.inner == (InnerConfig(18, 0.5, "sequential", True) if inner else None)


@pytest.mark.parametrize("ratio", [25, 20, 15, 10])
def test_rows_of_the_extension(ratio: int) -> None:
    """The paper's row and the tower's defaults beside it; no row of the paper has them."""
    config, paper = (
        load_config(f"configs/llava_onevision_7b/holitom{stage}_r{ratio}.yaml") for stage in ("_tower", "")
    )
    assert replace(config.compressor, tower=None) == paper.compressor
    assert config.compressor.tower == TowerConfig()


def test_every_shipped_file_is_checked() -> None:
    holitom = {f"holitom{stage}_r{ratio}" for stage in ("", "_without_inner", "_tower") for ratio in (25, 20, 15, 10)}
    assert {path.stem for path in CONFIGS} == set(ROWS) | holitom


def test_there_are_shipped_files() -> None:
    assert CONFIGS


@pytest.mark.parametrize("name", available_methods())
def test_every_method_survives_a_round_trip(name: str) -> None:
    config = available_methods()[name]()
    run = RunConfig(load_config_model(), name, config)
    assert parse_config(run.as_dict()) == run


def load_config_model():
    return parse_config({"compressor": None}).model

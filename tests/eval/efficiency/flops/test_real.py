"""Real FLOPs: the closed form against a naive list of products, a run with values, and the run without values."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from eval.efficiency.flops import counted as flops_counted
from eval.efficiency.flops.__main__ import main
from eval.efficiency.flops.by_layer import projector_flops, tower_flops
from eval.efficiency.flops.counted import MetaRuns
from eval.efficiency.flops.plans import Plan, make_plan, newer_methods, plans_of, spread_index
from eval.efficiency.flops.real import count_plans, record, shares
from eval.efficiency.flops.sizes import CHECKPOINTS, ModelSizes, model_config, sizes_of
from eval.efficiency.flops.stand_ins import nominal_scene, scene
from eval.efficiency.flops.tracing import LiveBytes
from eval.instruments.models.random_checkpoint import randomize, tiny_config
from eval.paper.config_names import config_stem
from eval.paper.rows import main_rows
from holitom.methods.holitom.outer import OuterCompression
from holitom.settings import RunConfig, parse_config
from llava.constants import IMAGE_TOKEN_INDEX
from llava.model.language_model.llava_qwen import LlavaQwenConfig, LlavaQwenForCausalLM
from tests.references.flops_closed_form import (
    closed_record,
    clustering_flops,
    decode_flops,
    deviations,
    gram_pairs,
    kv_cache_bytes,
    largest_deviations,
    method_flops,
    prefill_flops,
    signal_flops,
)
from tests.references.flops_memory import peak_activation_bytes

METHODS = {
    "vanilla": None,
    "fastv": {"method": "fastv"},
    "pdrop": {"method": "pdrop", "drop_layers": [1, 2, 4]},
    "inner": {"method": "holitom", "outer": None, "inner": {"merge_layer": 3, "merge_ratio": 0.5}},
    "holitom": {"method": "holitom", "outer": {"retain_ratio": 0.1}, "inner": {"merge_layer": 3, "merge_ratio": 0.5}},
}
FRAMES = 4
COUNTED = ("vanilla", "fastv", "pdrop", "holitom_without_inner_r10", "holitom_r10")


def config_of(method: str) -> RunConfig:
    return parse_config({"model": {"pretrained": "none"}, "compressor": METHODS[method]})


def tiny_model_config(layout: str = "llava-onevision", **changes: int) -> LlavaQwenConfig:
    raw = {key: value for key, value in tiny_config(layout=layout).items() if key != "model_type"}
    config = LlavaQwenConfig(**{**raw, **changes})
    config._attn_implementation = "sdpa"
    return config


def tiny_plan(method: str, frames: int = FRAMES, text: tuple[int, int] = (3, 5)) -> Plan:
    sizes = ModelSizes.of(tiny_model_config(), "tiny", frames)
    return make_plan(sizes, method, config_of(method), 10 if method == "holitom" else 100, text)


@pytest.fixture(scope="module")
def tiny_with_values() -> LlavaQwenForCausalLM:
    model = LlavaQwenForCausalLM(tiny_model_config()).eval()
    randomize(model, 0)
    return model


# A naive list of every matrix product, (rows, common, columns), written from the architecture alone.


def products(rows: int, common: int, columns: int) -> int:
    return 2 * rows * common * columns


def naive_tower(s: ModelSizes) -> int:
    total = 0
    for _ in range(s.frames):
        total += products(s.patches, 3 * s.patch * s.patch, s.tower_dim)
        for _ in range(s.tower_layers):
            for _ in ("query", "key", "value", "output"):
                total += products(s.patches, s.tower_dim, s.tower_dim)
            for _ in range(s.tower_heads):
                total += products(s.patches, s.tower_dim // s.tower_heads, s.patches)
                total += products(s.patches, s.patches, s.tower_dim // s.tower_heads)
            total += products(s.patches, s.tower_dim, s.tower_inner) + products(s.patches, s.tower_inner, s.tower_dim)
    return total


def naive_layer(s: ModelSizes, new: int, past: int, causal: bool) -> int:
    total = products(new, s.dim, s.heads * s.head_dim) + products(new, s.heads * s.head_dim, s.dim)
    total += 2 * products(new, s.dim, s.key_heads * s.head_dim)
    for _ in range(s.heads):
        for query in range(new):
            keys = past + (query + 1 if causal else new)
            total += products(1, s.head_dim, keys) + products(1, keys, s.head_dim)
    for _ in ("gate", "up", "down"):
        total += products(new, s.dim, s.inner)
    return total


SMALL = st.builds(
    ModelSizes,
    name=st.just("drawn"),
    frames=st.integers(1, 3),
    side=st.just(6),
    patch=st.just(2),
    patches=st.just(9),
    tower_dim=st.sampled_from([4, 12]),
    tower_inner=st.integers(1, 9),
    tower_layers=st.integers(1, 3),
    tower_heads=st.sampled_from([1, 2, 4]),
    tokens_per_frame=st.just(4),
    newline_mode=st.sampled_from(["one_token", "grid", "frame", "no_token"]),
    projector_layers=st.integers(1, 3),
    dim=st.integers(1, 9),
    inner=st.integers(1, 9),
    layers=st.integers(6, 7),
    heads=st.sampled_from([2, 4]),
    key_heads=st.sampled_from([1, 2]),
    head_dim=st.sampled_from([2, 4]),
    vocabulary=st.integers(1, 9),
)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(sizes=SMALL, method=st.sampled_from(["vanilla", "fastv", "pdrop", "inner"]), text=st.integers(2, 9))
def test_closed_form_equals_a_naive_list_of_products(sizes: ModelSizes, method: str, text: int) -> None:
    plan = make_plan(sizes, method, config_of(method), 100, (1, text))
    head = products(1, sizes.dim, sizes.vocabulary)
    assert tower_flops(sizes) == naive_tower(sizes)
    widths = [sizes.tower_dim] + [sizes.dim] * sizes.projector_layers
    rows = sizes.frames * sizes.patches
    assert projector_flops(sizes) == sum(products(rows, *pair) for pair in pairwise(widths))
    lengths = plan.lengths
    assert prefill_flops(plan) == head + sum(naive_layer(sizes, seq, 0, True) for seq in lengths)
    assert prefill_flops(plan, square=True) == head + sum(naive_layer(sizes, seq, 0, False) for seq in lengths)
    for step in (1, 3):
        assert decode_flops(plan, step) == head + sum(naive_layer(sizes, 1, seq + step - 1, True) for seq in lengths)
    cached = sum(2 * seq * sizes.key_heads * sizes.head_dim * 4 for seq in lengths)
    assert kv_cache_bytes(plan, element=4) == cached


@settings(derandomize=True, deadline=None, max_examples=40)
@given(sizes=SMALL, text=st.integers(2, 9))
def test_fewer_tokens_cost_less(sizes: ModelSizes, text: int) -> None:
    full, inner = (make_plan(sizes, name, config_of(name), 100, (1, text)) for name in ("vanilla", "inner"))
    outer = make_plan(sizes, "outer", config_of("vanilla"), 25, (1, text))
    for cost in (prefill_flops, decode_flops, kv_cache_bytes):
        assert cost(outer) < cost(full)
        assert cost(inner) < cost(full)
    assert prefill_flops(full) < prefill_flops(full, square=True)
    assert peak_activation_bytes(outer) <= peak_activation_bytes(full)
    assert decode_flops(full, 2) - decode_flops(full, 1) == 4 * sizes.layers * sizes.heads * sizes.head_dim


def run_with_values(model: LlavaQwenForCausalLM, method: str) -> tuple[int, list[int]]:
    """FLOPs that torch counts in a prefill with values, and the tokens its layers cached."""
    plan = tiny_plan(method)
    before, behind = plan.text
    ids = torch.tensor([[1] * before + [IMAGE_TOKEN_INDEX] + [2] * behind])
    pixels = torch.rand(FRAMES, 3, 384, 384, generator=torch.Generator().manual_seed(3))
    compressor = plan.config.build()
    if compressor is not None:
        compressor.apply(model)
    try:
        # the fused attention of the CPU is unknown to torch's counter
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            out = model(ids, images=[pixels], modalities=["video"], use_cache=True, logits_to_keep=1)
    finally:
        if compressor is not None:
            compressor.remove()
    return counter.get_total_flops(), [layer.keys.shape[-2] for layer in out.past_key_values.layers]


@pytest.mark.parametrize("method", ["vanilla", "fastv", "pdrop", "inner"])
def test_closed_form_equals_a_run_with_values(tiny_with_values: LlavaQwenForCausalLM, method: str) -> None:
    plan = tiny_plan(method)
    counted, cached = run_with_values(tiny_with_values, method)
    assert cached == plan.lengths
    added = method_flops(plan)
    assert added is not None
    assert (added.inner > 0) == (method != "vanilla")
    closed = tower_flops(plan.sizes) + projector_flops(plan.sizes) + prefill_flops(plan, square=True) + added.total
    assert counted == pytest.approx(closed, rel=1e-4)  # rotary angles are a product in some versions of transformers


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("layout", ["llava-onevision", "llava-video"])
def test_a_run_without_values_counts_what_the_closed_form_says(layout: str, method: str) -> None:
    config = tiny_model_config(layout)
    sizes = ModelSizes.of(config, "tiny", 17)  # more than one pass of the tower, and a short last segment
    plan = make_plan(sizes, method, config_of(method), 10 if method == "holitom" else 100, (3, 5))
    counted = MetaRuns(config, sizes).count(plan)
    assert list(counted.cached) == plan.lengths
    found = deviations(closed_record(plan), record(plan, counted))
    found.pop("peak_activation_bytes")  # meant for the widths of real models
    found_method = found.pop("method")
    assert max(found.values()) < 1e-4  # rotary angles are a product in some versions of transformers
    assert found_method < 0.01
    assert (counted.method.signals > 0) == (counted.method.outer > 0) == (method == "holitom")


@pytest.fixture(scope="module")
def rows_7b() -> tuple[list[dict], list[dict]]:
    plans = plans_of("llava-onevision-7b")
    return [closed_record(plan) for plan in plans], list(count_plans([plan for plan in plans if plan.name in COUNTED]))


def test_closed_form_and_count_agree_at_7b(rows_7b: tuple[list[dict], list[dict]]) -> None:
    closed, counted = rows_7b
    names = [row["config"] for row in counted]
    assert names == list(COUNTED)
    assert len(closed) == 24
    largest = largest_deviations(closed, counted)
    for exact in ("tower", "projector", "llm", "llm_square", "decode_per_token", "kv_cache_bytes"):
        assert largest[exact] < 1e-6, exact
    assert largest["method"] < 0.01
    assert largest["total"] < 1e-4
    assert largest["peak_activation_bytes"] < 0.02


def test_the_shares_at_7b(rows_7b: tuple[list[dict], list[dict]]) -> None:
    closed, counted = rows_7b
    vanilla, least = counted[0], counted[-1]
    # by hand, in 1e12: a layer of Qwen2-7B costs 2 * 233,046,016 FLOPs per token, attention 2 * 28 * 128 * 6353 * 6354
    linear = 28 * 6353 * 2 * (3584 * 2 * 3584 + 2 * 3584 * 512 + 3 * 3584 * 18944)
    assert closed[0]["prefill"]["llm"] == 28 * 2 * 3584 * 6353 * 6354 + linear + 2 * 3584 * 152064
    share = shares(closed)
    assert share is not None
    assert share["paper_formula_percent"] == 6.9
    assert share["llm_percent"] == pytest.approx(100 * least["prefill"]["llm"] / vanilla["prefill"]["llm"])
    assert share["prefill_percent"] == pytest.approx(
        100 * least["prefill"]["total"] / vanilla["prefill"]["total"], 1e-4
    )
    assert 6.9 < share["llm_percent"] < 10 < share["prefill_percent"] < 30
    assert shares([row for row in closed if row["config"] != "holitom_r10"]) is None
    for prefill in (row["prefill"] for row in (*counted, closed[-1])):
        parts = sum(prefill["method_parts"].values())
        assert parts == prefill["method"] < 0.01 * prefill["total"]
        assert prefill["total"] == sum(prefill[name] for name in ("tower", "projector", "llm", "method"))
        assert prefill["total_square"] - prefill["total"] == prefill["llm_square"] - prefill["llm"] > 0


def test_plans_are_the_rows_of_the_paper() -> None:
    plans = {plan.name: plan for plan in plans_of("llava-onevision-7b")}
    rows = {config_stem(*row.key): row for row in main_rows()}
    assert set(plans) == set(rows)
    assert len(plans) == 24
    for name, plan in plans.items():
        assert plan.visual == rows[name].tokens_per_layer[0]
        for seq, paper in zip(plan.lengths, rows[name].tokens_per_layer, strict=True):
            assert 0 <= seq - 80 - paper <= 1  # the newline, which a stage may keep or not
    video = {plan.name: plan for plan in plans_of("llava-video-7b")}
    assert video["vanilla"].spans == (64 * 169 + 64 * 13,)
    assert video["holitom_r15"].tokens == {
        "text": 80, "visual": 64 * 26, "newlines": 64 * 13, "before_llm": 2496, "after_inner": 1248, "prompt": 2576,
    }  # fmt: skip
    for name in CHECKPOINTS:
        assert plans_of(name)[0].name == "vanilla"


def test_spread_index_is_even_and_inside_the_frames() -> None:
    sizes = sizes_of("llava-onevision-7b")
    index = spread_index(sizes, 640)
    assert index.shape == (640,)
    assert torch.equal(index // 196, torch.arange(32).repeat_interleave(20))
    assert index.diff().min() >= 9
    assert index.max() < 6272


def test_clustering_is_counted_on_the_scene_that_the_closed_form_means() -> None:
    sizes = ModelSizes.of(tiny_model_config(hidden_size=256), "tiny", 19)
    static, lengths = scene(sizes)
    assert (static, lengths) == (107, [8, 8, 3])
    settings_ = config_of("holitom").compressor.outer
    attention = torch.rand(19, 196, generator=torch.Generator().manual_seed(1))
    with FlopCounterMode(display=False) as counter:
        kept = OuterCompression(settings_)(nominal_scene(sizes), attention)
    assert [last - first + 1 for first, last in kept.details.segments] == lengths
    assert kept.details.static_counts == [static] * 3
    assert counter.get_total_flops() == pytest.approx(clustering_flops(sizes, 0.1), rel=0.01)
    strips = 48 * 48 + 48 * 96 + 11 * 107  # of one triangle; by hand
    assert clustering_flops(sizes, 0.1) == sum(2 * 256 * strips for _ in kept.details.static_counts)
    assert gram_pairs(48) == 48 * 48
    assert 2 * gram_pairs(480) == 480 * 480 + 10 * 48 * 48
    single = ModelSizes.of(tiny_model_config(), "tiny", 1)
    assert clustering_flops(single, 0.1) == 0


def test_signals() -> None:
    sizes = sizes_of("llava-onevision-7b")
    width, patches = 1152, 729
    keys = 32 * products(patches, width, width)
    received = 2 * keys + 32 * 16 * (products(patches, 72, patches) + products(1, patches, patches))
    assert signal_flops(sizes, ()) == signal_flops(sizes, ("tower_output",)) == 0
    assert signal_flops(sizes, ("key_metric",)) == keys
    assert signal_flops(sizes, ("received_attention", "key_metric")) == received + keys


def test_methods_whose_work_is_not_known_say_so() -> None:
    """A stand-in keeps the tokens of an outer stage other than HoliTom's; the sum leaves out what it would compute."""
    config = tiny_model_config()
    sizes, raw = ModelSizes.of(config, "tiny", FRAMES), {"method": "visionzip", "tokens_per_frame": 20}
    plan = make_plan(sizes, "visionzip_r10", parse_config({"model": {"pretrained": "none"}, "compressor": raw}), 10)
    assert method_flops(plan) is None
    closed, counted = closed_record(plan), record(plan, MetaRuns(config, sizes).count(plan))
    for found in (closed, counted):
        assert found["prefill"]["method"] is None
        assert found["prefill"]["total"] == sum(found["prefill"][name] for name in ("tower", "projector", "llm"))
    counts = deviations(closed, counted)
    counts.pop("peak_activation_bytes")  # meant for the widths of real models
    assert max(counts.values()) == 0


@pytest.mark.parametrize("method", ["vanilla", "inner"])
def test_peak_of_a_run_without_values_is_that_of_a_run_with_values(method: str) -> None:
    """At widths in the proportions of the real models the estimate holds for both."""
    changes = {"hidden_size": 128, "intermediate_size": 680, "mm_hidden_size": 64}
    config = tiny_model_config(**changes)
    sizes = ModelSizes.of(config, "tiny", FRAMES)
    plan = make_plan(sizes, method, config_of(method), 100, (3, 5))
    model = LlavaQwenForCausalLM(config).eval()
    ids = torch.tensor([[1] * 3 + [IMAGE_TOKEN_INDEX] + [2] * 5])
    compressor = plan.config.build()
    if compressor is not None:
        compressor.apply(model)
    with torch.no_grad(), LiveBytes() as alive:
        model(ids, images=[torch.zeros(FRAMES, 3, 384, 384)], modalities=["video"], use_cache=True, logits_to_keep=1)
    hollow = MetaRuns(config, sizes).count(plan).peak_bytes
    assert hollow * 2 == pytest.approx(alive.peak, rel=0.15)  # float32 here, bfloat16 there
    assert peak_activation_bytes(plan, element=4) == pytest.approx(alive.peak, rel=0.15)


def test_deviations_see_a_difference(rows_7b: tuple[list[dict], list[dict]]) -> None:
    closed, counted = rows_7b
    wrong = json.loads(json.dumps(counted))
    wrong[1]["prefill"]["llm"] *= 2
    wrong[2]["kv_cache_bytes"] += wrong[2]["kv_cache_bytes"] // 50
    found = largest_deviations(closed, wrong)
    assert found["llm"] == pytest.approx(0.5)
    assert 0.015 < found["kv_cache_bytes"] < 0.02
    assert found["tower"] < 1e-6


def test_real_outer_stage_is_run_once_for_equal_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    true_scene = flops_counted.nominal_scene

    def counting(sizes: ModelSizes) -> torch.Tensor:
        made.append(1)
        return true_scene(sizes)

    monkeypatch.setattr(flops_counted, "nominal_scene", counting)
    config = tiny_model_config()
    plan = tiny_plan("holitom")
    runs = MetaRuns(config, plan.sizes)
    first, second = runs.count(plan), runs.count(plan)
    assert first == second
    assert len(made) == 1
    assert runs.model.visual_compressor is None


def test_rows_with_one_prompt_share_a_run() -> None:
    """What outer stages of one budget leave is one prompt; a stage inside the language model makes it another."""
    config = tiny_model_config()
    sizes, runs = ModelSizes.of(config, "tiny", FRAMES), MetaRuns(config, ModelSizes.of(config, "tiny", FRAMES))
    named: dict[str, dict] = {
        "uniform": {"method": "uniform", "retain_ratio": 0.1},
        "random": {"method": "random", "retain_ratio": 0.1},
        "holitom": {"method": "holitom", "outer": {"retain_ratio": 0.1}, "inner": {"merge_layer": 3}},
        "later": {"method": "holitom", "outer": {"retain_ratio": 0.1}, "inner": {"merge_layer": 4}},
    }
    for name, settings_ in named.items():
        run_config = parse_config({"model": {"pretrained": "none"}, "compressor": settings_})
        plan = make_plan(sizes, name, run_config, 10, (3, 5))
        found = runs.count(plan)
        assert (found.llm, found.kv_cache_bytes) == (prefill_flops(plan), kv_cache_bytes(plan)), name
    assert len(runs._decoded) == 3


# Command line


def json_line(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[str, dict]:
    main(list(arguments))
    out = capsys.readouterr().out
    return out, json.loads(out.splitlines()[-1])


def test_the_command_counts_and_ends_with_json(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    chosen = ("--only", "holitom_r10", "--text-tokens", "80")
    out, result = json_line(capsys, "--results", str(tmp_path), "--geometry", "llava-onevision-0.5b", *chosen)
    assert result["real"][0]["tokens"]["text"] == 80
    assert [row["config"] for row in result["real"]] == ["vanilla", "holitom_r10"]
    assert len(result["rows"]) == 33
    keys = {"geometry", "config", "prefill", "decode_per_token", "kv_cache_bytes", "peak_activation_bytes", "tokens"}
    assert all(set(row) == keys for row in result["real"])
    assert result["headline"] is None
    assert "llava-onevision-0.5b: real FLOPs" in out
    line = next(line for line in out.splitlines() if line.strip().startswith("holitom_r10"))
    assert "641 > 320" in line
    assert "20.54" in line


def test_more_text_costs_more() -> None:
    plans = (plans_of("llava-onevision-7b", text) for text in ((1, 1), (20, 480)))
    few, many = ([closed_record(plan) for plan in each] for each in plans)
    assert few[0]["tokens"]["text"] == 2
    assert shares(few)["llm_percent"] < shares(many)["llm_percent"]
    assert shares(few)["llm_percent"] < 8  # without text it is near the paper's 6.9


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--geometry", "llava-13b"], "llava-13b"),
        (["--text-tokens", "1"], "--text-tokens = 1 is out of range: it must be at least 2"),
        (["--only", "most"], "--only most is no row of"),
        (["--results", "nowhere"], "--results nowhere is no folder"),
    ],
)
def test_wrong_arguments(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


@pytest.fixture
def figure_file(tmp_path: Path) -> Path:
    path = tmp_path / "taken"
    path.write_text("")
    return path


def test_figures(capsys: pytest.CaptureFixture[str], tmp_path: Path, figure_file: Path) -> None:
    pytest.importorskip("matplotlib")
    from eval.report.figures.flops import main as draw  # noqa: PLC0415 - matplotlib

    results = Path(__file__).parents[4] / "results"
    folder = tmp_path / "figures"
    result = results / "cpu" / "flops.json"
    draw([str(result), "--results", str(results), "-o", str(folder)])
    names = {"flops_stages.png", "flops_accuracy_paper.png"}
    names |= {"flops_accuracy_measured_tiny.png"} if (results / "tiny" / "main.json").is_file() else set()
    assert {path.name for path in folder.iterdir()} == names
    for path in folder.iterdir():
        assert path.read_bytes().startswith(b"\x89PNG")
    capsys.readouterr()
    with pytest.raises(SystemExit):
        draw([str(result), "-o", str(figure_file)])
    assert "is a file" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        draw([str(result), "-o", str(figure_file / "below")])
    assert "cannot be written" in capsys.readouterr().err
    broken = tmp_path / "results" / "tiny"
    broken.mkdir(parents=True)
    (broken / "main.json").write_text("{}")
    with pytest.raises(SystemExit):
        draw([str(result), "--results", str(broken.parent), "-o", str(folder)])
    assert "eval.synthetic.answers.table" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        draw([str(broken / "main.json"), "-o", str(folder)])
    assert "no result of eval.efficiency.flops" in capsys.readouterr().err


def test_figures_show_the_papers_points(rows_7b: tuple[list[dict], list[dict]]) -> None:
    pytest.importorskip("matplotlib")
    from eval.report.figures.flops import accuracy_by_flops, stage_bars  # noqa: PLC0415 - matplotlib

    figure = accuracy_by_flops(rows_7b[0])
    left, right = figure.axes
    lines = {line.get_label(): line for line in left.lines}
    assert lines["HoliTom"].get_xydata()[0] == pytest.approx([6.9, 99.1], abs=0.05)
    assert "FastVID" not in lines  # the paper prints no average for it
    real = {line.get_label(): line for line in right.lines}["HoliTom"].get_xydata()[0]
    assert real == pytest.approx([26.25, 99.1], abs=0.5)
    bars = stage_bars(rows_7b[0]).axes[0]
    tops = max(bar.get_y() + bar.get_height() for bar in bars.patches)
    assert tops == pytest.approx(rows_7b[0][0]["prefill"]["total"] / 1e12)


def test_the_72b_model_is_far_above_the_others() -> None:
    vanilla = closed_record(plans_of("llava-onevision-72b")[0])
    assert vanilla["geometry"] == "llava-onevision-72b"
    assert vanilla["prefill"]["llm"] > 9e14


@pytest.mark.parametrize("name", ["flashvid_r10", "earlytom_r10", "holitom_tower_r10"])
def test_newer_methods_count_what_the_closed_form_says(name: str) -> None:
    """FlashVID sends a quarter more to the LLM; EarlyTom's later tower layers and the projector see fewer frames."""
    plans = {plan.name: plan for plan in plans_of("llava-onevision-0.5b", methods=newer_methods("llava-onevision-7b"))}
    plan, sizes = plans[name], plans[name].sizes
    run = MetaRuns(model_config(sizes.name), sizes).count(plan)
    assert run.llm == prefill_flops(plan)
    assert run.projector == projector_flops(sizes, plan.tower_frames[-1])
    tower, received = tower_flops(sizes, plan.tower_frames), signal_flops(sizes, ("received_attention",))
    if name == "flashvid_r10":
        assert plan.spans == (801, 241)
        assert (run.tower, run.method.signals) == (tower, received)
        return
    if name == "holitom_tower_r10":
        assert method_flops(plan) is None
        assert plan.tower_frames == (*[32] * 7, *[4] * 19)
        assert run.tower == tower + received * 4 // 32, "read behind the last layer, which sees 4 frames"
        return
    assert [plan.tower_frames[layer] for layer in (8, 9, 21, 22, 23, 24)] == [32, 20, 20, 12, 12, 8]
    assert sum(plan.tower_frames) / (26 * 32) == pytest.approx(0.707, abs=5e-4)
    assert run.tower == tower + received * 12 // 32, "read behind layer 23, which sees 12 frames"

"""The paper's FLOPs formula reproduces every printed digit, and counts tokens as the paper does."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.efficiency.flops.__main__ import main
from eval.instruments.kinds import stamped
from eval.paper.formula import (
    ONEVISION_05B,
    ONEVISION_7B,
    ONEVISION_72B,
    VIDEO_7B,
    Geometry,
    fastv_layers,
    inner_layers,
    outer_layers,
    outer_tokens,
    paper_flops,
    pdrop_layers,
    staged_layers,
)
from eval.paper.rows import main_rows, other_backbone_rows
from llava.errors import InputError

# method, tokens kept in percent, TFLOPs and percentage as printed in the paper's main table
MAIN_TABLE = """
Vanilla          100 40.8 100
FastV            100  9.3 22.8
PDrop            100 10.5 25.7
DyCoke            25  8.7 21.3
VisionZip         25  8.7 21.3
PruneVid          25  8.7 21.3
FastVID           25  8.7 21.3
HoliTom (w/o M)   25  8.7 21.3
HoliTom           25  7.1 17.4
VisionZip         20  7.0 17.2
PruneVid          20  7.0 17.2
FastVID           20  7.0 17.2
HoliTom (w/o M)   20  7.0 17.2
HoliTom           20  5.8 14.2
VisionZip         15  5.2 12.7
PruneVid          15  5.2 12.7
FastVID           15  5.2 12.7
HoliTom (w/o M)   15  5.2 12.7
HoliTom           15  4.3 10.5
VisionZip         10  3.4  8.3
PruneVid          10  3.4  8.3
FastVID           10  3.4  8.3
HoliTom (w/o M)   10  3.4  8.3
HoliTom           10  2.8  6.9
"""


def tflops(geometry: Geometry, layers: list[int]) -> float:
    return paper_flops(layers, geometry.hidden_size, geometry.intermediate_size) / 1e12


def test_all_rows_of_the_main_table() -> None:
    printed = [line.rsplit(None, 3) for line in MAIN_TABLE.strip().splitlines()]
    assert len(printed) == 24
    ours = [(row.method, row.retained, round(row.tflops, 1), round(row.percent, 1)) for row in main_rows()]
    assert ours == [(name, int(kept), float(flops), float(share)) for name, kept, flops, share in printed]
    for row in main_rows():
        assert (row.paper_tflops, row.paper_percent) == (round(row.tflops, 1), round(row.percent, 1))


THREE_DECIMALS = {
    "vanilla": (outer_layers(ONEVISION_7B), 40.765),
    "25 %": (outer_layers(ONEVISION_7B, 0.25), 8.711),
    "20 %": (outer_layers(ONEVISION_7B, 0.20), 7.037),
    "15 %": (outer_layers(ONEVISION_7B, 0.15), 5.216),
    "10 %": (outer_layers(ONEVISION_7B, 0.10), 3.436),
    "HoliTom 25 %": (inner_layers(ONEVISION_7B, 0.25, 18), 7.111),
    "HoliTom 20 %": (inner_layers(ONEVISION_7B, 0.20, 18), 5.751),
    "HoliTom 15 %": (inner_layers(ONEVISION_7B, 0.15, 18), 4.268),
    "HoliTom 10 %": (inner_layers(ONEVISION_7B, 0.10, 18), 2.815),
    "FastV": (fastv_layers(ONEVISION_7B), 9.307),
    "PDrop": (pdrop_layers(ONEVISION_7B), 10.493),
    "PDrop, official layers": (pdrop_layers(ONEVISION_7B, (8, 16, 24)), 20.0),
    "PDrop, evenly spaced": (pdrop_layers(ONEVISION_7B, (7, 14, 21)), 18.0),
}


@pytest.mark.parametrize(("layers", "expected"), THREE_DECIMALS.values(), ids=THREE_DECIMALS.keys())
def test_the_7b_model_to_three_decimals(layers: list[int], expected: float) -> None:
    decimals = 1 if expected in (20.0, 18.0) else 3
    assert round(tflops(ONEVISION_7B, layers), decimals) == expected


def test_the_other_backbones() -> None:
    values = [(row.model.name, round(row.tflops, 2)) for row in other_backbone_rows()]
    video, large = VIDEO_7B.name, ONEVISION_72B.name
    assert values[:5] == [(video, 80.16), (video, 17.12), (video, 19.47), (video, 9.28), (video, 7.57)]
    assert values[5:] == [(large, pytest.approx(value, abs=0.01)) for value in (429.32, 86.38, 59.03, 51.57)]
    printed = [80.2, 17.1, 19.5, 9.3, 7.6, 429.3, 86.4, 59.0, 51.6]
    assert [row.paper_tflops for row in other_backbone_rows()] == printed
    assert [round(row.tflops, 1) for row in other_backbone_rows()] == printed


def test_token_counts() -> None:
    assert [outer_tokens(ONEVISION_7B, ratio) for ratio in (1, 0.25, 0.2, 0.15, 0.1)] == [6272, 1568, 1280, 960, 640]
    assert outer_tokens(VIDEO_7B, 0.15) == 64 * 26
    # 100 * 0.07 is a little more than 7 in floating point
    assert outer_tokens(Geometry("even", 8, 8, 2, frames=1, tokens_per_frame=100), 0.07) == 7
    assert fastv_layers(ONEVISION_7B) == [6272] * 2 + [1254] * 26
    assert pdrop_layers(ONEVISION_7B) == [6272] * 2 + [3136] * 5 + [1568] * 7 + [784] * 14
    assert inner_layers(ONEVISION_7B, 0.15, 18) == [960] * 18 + [480] * 10
    assert inner_layers(ONEVISION_72B, 0.15, 60) == [960] * 60 + [480] * 20
    assert outer_layers(ONEVISION_05B) == [6272] * 24


@settings(derandomize=True, deadline=None, max_examples=30)
@given(
    tokens=st.lists(st.integers(0, 9000), min_size=1, max_size=5), width=st.integers(1, 99), inner=st.integers(1, 99)
)
def test_formula_equals_the_products_it_counts(tokens: list[int], width: int, inner: int) -> None:
    """Four projections of n x d by d x d, two attention products of n x n by d, two feed-forward products."""
    expected = 0
    for count in tokens:
        for rows, common, columns in [*[(count, width, width)] * 4, (count, width, count), (count, count, width)]:
            expected += rows * common * columns
        expected += count * width * inner + count * inner * width
    assert paper_flops(tokens, width, inner) == expected


def test_sizes_from_a_config() -> None:
    flat = {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28}
    assert Geometry.from_config(flat, ONEVISION_7B.name) == ONEVISION_7B
    assert Geometry.from_config({"hidden_size": 1, "text_config": flat}, ONEVISION_7B.name) == ONEVISION_7B
    nested = SimpleNamespace(text_config=SimpleNamespace(**flat))
    assert Geometry.from_config(nested, VIDEO_7B.name, frames=64, tokens_per_frame=169) == VIDEO_7B
    with pytest.raises(InputError, match="the config of mine has no intermediate_size, num_hidden_layers"):
        Geometry.from_config({"hidden_size": 5}, "mine")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Geometry("zero", 0, 1, 1), "hidden_size is 0"),
        (lambda: Geometry("half", 8, 8, 2, frames=1.5), "frames is 1.5"),  # type: ignore[arg-type]
        (lambda: outer_tokens(ONEVISION_7B, 0), "retain_ratio is 0"),
        (lambda: outer_tokens(ONEVISION_7B, 15), "retain_ratio is 15"),
        (lambda: inner_layers(ONEVISION_7B, 0.15, 28), r"layers \[0, 28\]; they must be 0 and other layers below 28"),
        (lambda: staged_layers(ONEVISION_7B, {2: 5}), r"layers \[2\]"),
        (lambda: paper_flops([], 8, 8), "one count .* for each layer"),
        (lambda: paper_flops([4, -1], 8, 8), "at least 0"),
    ],
)
def test_bad_values(call: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()  # type: ignore[operator]


# the rest of the command is tested in test_flops_real.py
FORMULA_ALONE = ("--geometry", "llava-onevision-72b", "--results")


@pytest.fixture
def nothing_counted(monkeypatch) -> None:
    monkeypatch.setattr(
        "eval.efficiency.flops.__main__.real_flops", lambda *_: {"real": [], "headline": None, "newer": []}
    )


@pytest.mark.usefixtures("nothing_counted")
def test_the_command_prints_every_row_and_ends_with_json(capsys: pytest.CaptureFixture[str], tmp_path) -> None:
    main([*FORMULA_ALONE, str(tmp_path)])
    lines = capsys.readouterr().out.splitlines()
    rows = json.loads(lines[-1])["rows"]
    assert len(rows) == 33
    assert all(row["agrees"] for row in rows)
    assert lines[1 + 33] == "33 of 33 rows agree with the printed digits"
    assert lines[1 + 33 + 1].startswith("real token counts: not measured")
    full = next(row for row in rows if row["method"] == "HoliTom" and row["retained_percent"] == 15)
    assert (full["tokens"], full["paper_tflops"], full["tflops"], full["difference"]) == (
        [960, 480],
        4.3,
        4.268,
        -0.032,
    )
    assert "HoliTom" in lines[19]
    assert lines[19].split()[-5:-2] == ["4.3", "4.268", "-0.032"]


@pytest.mark.usefixtures("nothing_counted")
def test_real_counts_that_differ_are_named(capsys, tmp_path) -> None:
    rows = [
        {
            "config": "visionzip_r25",
            "nominal": "1568",
            "measured": "1600",
            "nominal_tflops": 8.711,
            "measured_tflops": 8.9,
        },
        {
            "config": "dycoke_r25",
            "nominal": "1568",
            "measured": "1568",
            "nominal_tflops": 8.711,
            "measured_tflops": 8.711,
        },
        {
            "config": "uniform_r25",
            "nominal": None,
            "measured": "1568",
            "nominal_tflops": None,
            "measured_tflops": 8.711,
        },
    ]
    (tmp_path / "cpu").mkdir()
    path = tmp_path / "cpu" / "token_counts.json"
    path.write_text(json.dumps(stamped("tokens", {"result": {"rows": rows}})))
    main([*FORMULA_ALONE, str(tmp_path)])
    out = capsys.readouterr().out
    assert "1 of 3 measured rows" in out
    assert json.loads(out.splitlines()[-1])["real_counts_that_differ"] == rows[:1]
    path.write_text("{}")
    with pytest.raises(SystemExit) as end:
        main([*FORMULA_ALONE, str(tmp_path)])
    assert end.value.code == 2
    assert "token_counts" in capsys.readouterr().err
    path.unlink()
    main([*FORMULA_ALONE, str(tmp_path)])
    assert "not measured" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main([*FORMULA_ALONE, str(tmp_path / "none")])
    assert "is no folder" in capsys.readouterr().err

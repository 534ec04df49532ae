"""The benchmark of decoding: every way has its numbers, the bytes are those of the sizes, mistakes are one line."""

import contextlib
import io
import json
import time

import pytest
import torch

from eval.efficiency.decode import main
from eval.efficiency.decode_runs import StepCounter
from eval.instruments.models.geometries import GEOMETRIES
from llava.model.static_decoding import StaticDecoder
from tests.references.calls import noted

SMALL = ["--geometry", "tiny", "--frames", "4", "--repetitions", "1", "--new-tokens", "6", "--threads", "1"]
CONFIG = "configs/tiny/holitom_r10.yaml"
LAYERS, KV_HEADS, HEAD_DIM = (
    GEOMETRIES["tiny"][name] for name in ("num_hidden_layers", "num_key_value_heads", "hidden_size")
)
HEAD_DIM //= GEOMETRIES["tiny"]["num_attention_heads"]


@pytest.fixture(scope="module")
def result() -> dict:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        main([*SMALL, "--dtype", "float32", "--configs", CONFIG])
    *table, last = out.getvalue().splitlines()
    assert sum("not measured" in line for line in table) == 2, "graphs, for both rows"
    return json.loads(last)


def test_every_way_of_both_rows_is_measured(result: dict) -> None:
    assert [row["config"] for row in result["rows"]] == ["vanilla", "holitom_r10"]
    for row in result["rows"]:
        assert list(row["decode"]) == ["eager", "preallocated", "static", "graphs"]
        assert row["decode"]["graphs"] is None is row["against_eager"]["graphs"]
        for way in ("eager", "preallocated", "static"):
            found = row["decode"][way]
            assert found["ms_per_token"]["n"] == 1
            assert found["tokens_per_second"] == pytest.approx(1e3 / found["ms_per_token"]["median"], rel=1e-3)
        assert row["decode"]["static"]["operators"] < row["decode"]["eager"]["operators"]
        assert row["against_eager"]["eager"] == 1
    assert all(value == 1 for way, value in result["rows"][0]["against_vanilla"].items() if way != "graphs")


def test_what_is_made_once_is_made_once_for_each_row(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """Rows take turns: a decoder for all of them would be made, and its graph captured, in every repetition."""
    made = []
    monkeypatch.setattr(StaticDecoder, "__init__", noted(made, StaticDecoder.__init__))
    main([*SMALL, "--repetitions", "3", "--dtype", "float32", "--configs", CONFIG])
    assert len(made) == 2
    rows = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]
    assert all(row["decode"][way]["first_answer_ms"] > 0 for row in rows for way in ("eager", "static"))


def test_the_first_answer_is_no_repetition(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    slow = noted([], StaticDecoder.__init__, lambda: time.sleep(0.5))
    monkeypatch.setattr(StaticDecoder, "__init__", slow)
    main([*SMALL, "--dtype", "float32"])
    (row,) = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]
    static = row["decode"]["static"]
    assert static["first_answer_ms"] > 500 > 5 * static["ms_per_token"]["max"]


def test_bytes_are_those_of_the_sizes(result: dict) -> None:
    """The eager loop reads and writes its whole cache once more per token; the others copy a few entries."""
    vanilla, compressed = result["rows"]
    assert vanilla["tokens"] == {"prompt": 40 + 4 * 196 + 1, "last_layer": 40 + 4 * 196 + 1}
    assert compressed["tokens"]["last_layer"] < compressed["tokens"]["prompt"] < 200
    entry = 2 * KV_HEADS * HEAD_DIM * 4
    for row in (vanilla, compressed):
        step, prompt = row["bytes_per_step"], row["tokens"]["prompt"]
        assert step["kv_share"] == pytest.approx(step["kv_cache"] / (step["kv_cache"] + step["weights"]), abs=1e-4)
        few = row["decode"]["preallocated"]["copied_bytes"]
        assert few < 60_000
        if row is vanilla:
            assert step["kv_cache"] == entry * LAYERS * (prompt + 3)
            cache = 2 * entry * LAYERS * (prompt + 3)  # three new tokens are in the cache at the fourth step
            assert row["decode"]["eager"]["copied_bytes"] - few == pytest.approx(cache, rel=0.02)
        assert row["decode"]["static"]["copied_bytes"] < 60_000


def test_copies_are_counted_and_views_are_not() -> None:
    values = torch.zeros(10)
    with StepCounter() as counter:
        torch.cat([values, values]).view(4, 5).transpose(0, 1)[1].add(1)
        values[:4].clone()
    assert counter.operators == 3
    assert counter.copied_bytes == 2 * 4 * (20 + 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--new-tokens", "1"], "--new-tokens = 1 is out of range: it must be at least 2"),
        (["--repetitions", "0"], "--repetitions = 0 is out of range: it must be at least 1"),
        (["--configs", CONFIG, CONFIG], "2 rows are called 'holitom_r10'"),
        (["--configs", "no.yaml"], "no.yaml"),
        (["--geometry", "small"], "small"),
        (["--device", "cuda"], "--device cuda"),
    ],
)
def test_mistakes_are_one_line(capsys, arguments: list[str], message: str) -> None:
    if arguments[-1] == "cuda" and torch.cuda.is_available():
        pytest.skip("the device exists")
    with pytest.raises(SystemExit) as error:
        main([*SMALL, *arguments])
    text = capsys.readouterr().err
    assert error.value.code == 2
    assert message in text
    assert text.count("\n") == 1

"""What is made from latency results: the figure, and the README's efficiency section."""

import json
from pathlib import Path
from typing import Any

import pytest

from eval.instruments.kinds import stamped
from eval.report.figures.latency import main, panels, stage_parts
from eval.report.readme.__main__ import main as readme_main
from eval.report.readme.efficiency import efficiency, not_measured
from llava.errors import InputError

FACTS = {
    "command": "python -m eval.efficiency.latency", "commit": "abc", "device": "NVIDIA H200", "cuda": "13.0",
    "torch": "2.11", "transformers": "5.17",
}  # fmt: skip


def spread(median: float) -> dict[str, float]:
    return {"median": median, "min": median - 1, "max": median + 1, "iqr": 0.5, "n": 10}


def row(
    config: str, method: str | None, clip: str, stages: dict[str, float], first: float, speed: float
) -> dict[str, Any]:
    absent = dict.fromkeys(("video", "preprocess", "signals", "outer", "inner"))
    times = {**absent, **{name: spread(ms) for name, ms in stages.items()}}
    kept = 100 if method is None else 12
    return {
        "config": config, "file": f"configs/{config}.yaml", "method": method, "clip": clip,
        "tokens": {"prompt": 136, "visual": 100, "before_llm": kept, "inside_llm": kept // 2 if method else kept,
                   "budget": 13 if method else None},
        "stages_ms": {**times, "time_to_first_token": spread(first), "time_per_output_token": spread(8.0)},
        "tokens_per_second": spread(125.0), "peak_memory_mb": 17000.0,
        "decode": {"eager": spread(8.0), "static": None, "graphs": None},
        "against_vanilla": {"time_to_first_token": speed, "time_per_output_token": 1.0, "tokens_per_second": 1.0,
                            "overhead": 0.021 if method else 0.0, "peak_memory": 1.0},
    }  # fmt: skip


@pytest.fixture
def result() -> dict[str, Any]:
    plain, short = (
        {"tower": 60.0, "projector": 3.0, "prefill": 130.0},
        {"tower": 60.0, "projector": 3.0, "prefill": 12.0},
    )
    own = {"signals": 1.5, "outer": 0.9, "inner": 0.4}
    rows = [
        found
        for clip in ("drawn, 50% still", "talk.mp4")
        for found in (
            row("vanilla", None, clip, plain, 200.0, 1.0),
            row("holitom_r10", "holitom", clip, {**short, **own}, 80.0, 2.5),
        )
    ]
    clips = [{"name": "drawn, 50% still", "redundancy": 0.5, "features_alike": 0.42},
             {"name": "talk.mp4", "redundancy": None, "features_alike": None}]  # fmt: skip
    return {
        "geometry": "llava-onevision-7b", "checkpoint": None, "random_weights": True, "dtype": "bfloat16",
        "attention": "sdpa", **FACTS, "driver": "580", "clocks": None, "frames": 32, "clip": clips[0], "clips": clips,
        "repetitions": 10, "new_tokens": 32, "rows": rows,
    }  # fmt: skip


@pytest.fixture
def results(tmp_path: Path, result: dict[str, Any]) -> Path:
    folder = tmp_path / "results" / "h200"
    folder.mkdir(parents=True)
    (folder / "latency_llava-onevision-7b.json").write_text(json.dumps(stamped("latency", {**FACTS, "result": result})))
    return tmp_path / "results"


def test_the_parts_of_a_bar_make_up_the_measured_time(result: dict[str, Any]) -> None:
    for one in result["rows"]:
        parts = stage_parts(one)
        assert sum(parts.values()) == pytest.approx(one["stages_ms"]["time_to_first_token"]["median"])
        assert min(parts.values()) >= 0
    assert stage_parts(result["rows"][1]) == pytest.approx(
        {"tower": 60, "projector": 3, "signals": 1.5, "outer": 0.9, "llm": 11.6, "inner": 0.4, "other": 2.6}
    )
    assert [len(rows) for _, rows in panels([result, result])] == [2, 2, 2, 2]


def test_a_figure_is_written_from_recorded_and_printed_results(tmp_path: Path, results: Path, capsys) -> None:
    recorded = results / "h200" / "latency_llava-onevision-7b.json"
    printed = tmp_path / "printed.json"
    printed.write_text(json.dumps(stamped("latency", json.loads(recorded.read_text())["result"])))
    figure = tmp_path / "new" / "latency.png"
    main([str(recorded), str(printed), "-o", str(figure)])
    assert figure.read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().out.strip() == str(figure)
    assert not [path for path in figure.parent.iterdir() if path != figure]


@pytest.mark.parametrize("text", [None, "no json", "{}", "[]", '{"result": {"rows": [{"config": "x"}]}}'])
def test_what_is_no_result_is_refused(tmp_path: Path, text: str | None, capsys) -> None:
    path = tmp_path / "x.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(SystemExit, match="2"):
        main([str(path), "-o", str(tmp_path / "x.png")])
    assert "x.json" in capsys.readouterr().err
    assert not (tmp_path / "x.png").exists()


def test_an_unknown_kind_of_picture_is_refused(tmp_path: Path, results: Path, capsys) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([str(results / "h200" / "latency_llava-onevision-7b.json"), "-o", str(tmp_path / "x.docx")])
    assert "x.docx" in capsys.readouterr().err


def test_the_section_holds_the_measured_numbers(results: Path) -> None:
    text = efficiency(results)
    for part in (
        "llava-onevision-7b", "random weights", "32 frames", "42% of the features", "| 12 > 6 of 13 |", "| 100 > 100 |",
        "80.0 (79 to 81)", "2.50x", "1.50 + 0.90 + 0.40", "2.1%", "commit abc, NVIDIA H200", "Clip: talk.mp4.",
    ):  # fmt: skip
        assert part in text
    assert text.count("| holitom_r10 |") == 2


def test_what_was_not_measured_follows_from_the_files(results: Path, result: dict[str, Any]) -> None:
    missing = "\n".join(not_measured(results))
    assert "LLaVA-OneVision-7B" not in missing
    for part in (
        "LLaVA-Video-7B",
        "0.5B model on a CPU",
        "Triton kernels",
        "CUDA graphs",
        "FLOPs",
        "published checkpoint",
    ):
        assert part in missing
    path = results / "h200" / "latency_llava-onevision-7b.json"
    path.write_text(
        json.dumps(stamped("latency", {**FACTS, "cuda": None, "result": {**result, "random_weights": False}}))
    )
    missing = "\n".join(not_measured(results))
    assert "LLaVA-OneVision-7B on a GPU" in missing  # a CPU's result is none of a GPU
    assert "published checkpoint" not in missing


def test_kernels_decoding_and_flops_have_their_tables(results: Path) -> None:
    kernels = {
        "kernels_measured": True,
        "rows": [
            {"name": "outer_stage", "dtype": "bfloat16", "ms": 0.4321, "ratio": 5.25, "error": None,
             "plain_error": None, "operators": 40, "launches": 17, "syncs": 1},
        ],
    }  # fmt: skip
    way = {"ms_per_token": spread(4.0), "tokens_per_second": 250.0, "first_answer_ms": 900.4, "copied_bytes": 2_500_000,
           "operators": 321}  # fmt: skip
    ways = {"eager": way, "graphs": None}
    decode = {
        "settings": {"geometry": "llava-onevision-7b", "frames": 32, "dtype": "bfloat16", "attention": "sdpa",
                     "new_tokens": 64, "repetitions": 5},
        "rows": [{"config": "vanilla", "tokens": {"prompt": 6313, "last_layer": 6300}, "decode": ways,
                  "bytes_per_step": {"weights": 1, "kv_cache": 1, "kv_share": 0.025},
                  "against_eager": {"eager": 1.0}, "against_vanilla": {"eager": 1.0}}],
    }  # fmt: skip
    stages = {"tower": 18e12, "projector": 1e12, "llm": 90e12, "total": 109e12}
    real = [
        {"geometry": "llava-onevision-7b", "config": config, "prefill": {**stages, "llm": stages["llm"] / divisor},
         "decode_per_token": 15e9, "kv_cache_bytes": 36e7, "tokens": {"before_llm": 6273, "after_inner": 300}}
        for config, divisor in (("vanilla", 1), ("holitom_r10", 12))
    ]  # fmt: skip
    flops = {"rows": [{"agrees": True}, {"agrees": False}], "real": real}
    named = {"bench_kernels": kernels, "bench_decode": decode, "flops": flops}
    for name, result in named.items():
        kind = name.removeprefix("bench_")
        (results / "h200" / f"{name}.json").write_text(json.dumps(stamped(kind, {**FACTS, "result": result})))
    text = efficiency(results)
    for part in (
        "| outer_stage | bfloat16 | 0.432 | 5.25 | - | - | 40 | 17 | 1 |",
        "6313 > 6300 tokens, cache 2.5% | eager | 4.00 | 250.0 | 1.00x | 1.00x | 900 | 2.50 | 321 |",
        "| graphs | not measured |", "1 of 2 rows", "| holitom_r10 | 6273 > 300 | 18.00 |",
        "| 7.50 | 8.3% |",
    ):  # fmt: skip
        assert part in text
    missing = "\n".join(not_measured(results))
    for part in ("Triton kernels", "FLOPs"):
        assert part not in missing


def test_a_folder_without_results_says_so_and_breaks_nothing(tmp_path: Path) -> None:
    assert efficiency(tmp_path).startswith("**Not measured:**")


def test_a_damaged_result_is_named(results: Path) -> None:
    path = results / "h200" / "latency_llava-onevision-7b.json"
    path.write_text(json.dumps(stamped("latency", {**FACTS, "result": {"rows": []}})))
    with pytest.raises(InputError, match=r"latency_llava-onevision-7b\.json"):
        efficiency(results)


def test_both_sections_of_a_readme_are_written_and_checked(tmp_path: Path, results: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("old")
    options = ["--results", str(results), "--readme", str(readme)]
    with pytest.raises(SystemExit, match="1"):
        readme_main([*options, "--check"])
    readme_main(options)
    text = readme.read_text()
    assert "2.50x" in text
    assert "`parity.json`: not measured" in text
    assert "old" not in text
    assert text.startswith("# Measured results\n")
    with pytest.raises(SystemExit, match="0"):
        readme_main([*options, "--check"])
    readme.write_text(text.replace("2.50x", "2.60x"))
    with pytest.raises(SystemExit, match="1"):
        readme_main([*options, "--check"])
    readme_main(["--results", str(results)])
    assert (results / "README.md").read_text() == readme.read_text().replace("2.60x", "2.50x")

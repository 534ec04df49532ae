"""The reviewer's page: tables are the JSON they come from, verdicts follow from rules, bytes from the inputs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from eval.paper.rows import as_record, main_rows, other_backbone_rows
from eval.paper.scores import EFFICIENCY, MAIN_SCORES
from eval.report.__main__ import main, make_page
from eval.report.page.findings import taken_over
from eval.report.page.sources import read_sources
from tests.eval.benchmarks.made_results import write_run
from tests.eval.report.page.conftest import OwnPage
from tests.eval.report.page.made import (
    MODEL,
    NOTICE,
    ROOT,
    TINY,
    VERDICTS,
    Page,
    ablations,
    claim,
    claims,
    full_folder,
    judge_folder,
    latency,
    latency_row,
    paper_like,
    record,
    tiny,
    write_json,
)


def made(folder: Path) -> Page:
    return Page(make_page(read_sources(folder))[0])


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    return made(full_folder(tmp_path_factory.mktemp("results")))


def test_tiny_table_equals_its_json(page: Page) -> None:
    rows = tiny(TINY)["rows"]
    shown = page.numbers("tiny--main")
    assert [row[0][0] for row in page.tables["tiny--main"]] == list(TINY)
    for name, numbers in zip(TINY, shown, strict=True):
        row = rows[name]
        scaled = [100 * row[key] for key in ("score", "retention", "difference", "low", "high")]
        assert numbers == [None, *scaled, None, row["outer"], row["inside"], row["gflops"]]
    families = page.numbers("tiny--main-families")
    assert families == [[None, *(100 * value for value in rows[name]["families"].values())] for name in TINY]
    [duel] = page.tables["tiny--main-pairs"]
    assert [cell[0] for cell in duel] == ["holitom_r10 - random_r10", "+12.3", "+5.0", "+20.0", "better", "\u2013"]


def test_latency_table_equals_its_json(page: Page) -> None:
    rows = latency()["result"]["rows"]
    table = "h200--latency_llava-onevision-7b"
    slug = next(name for name in page.tables if name.startswith("h200--latency"))
    assert slug.startswith(table.replace("_", "-"))
    for row, numbers in zip(rows, page.numbers(slug), strict=True):
        stages, against = row["stages_ms"], row["against_vanilla"]
        names = ("video", "preprocess", "tower", "projector", "outer", "prefill")
        times = [stages[name]["median"] for name in names] + [None]
        times += [stages[name]["median"] for name in ("time_to_first_token", "time_per_output_token")]
        ratios = [against[name] for name in ("time_to_first_token", "tokens_per_second", "peak_memory")]
        assert numbers == [None, 640.0, *times, 105.25, row["peak_memory_mb"], *ratios]
    spec = page.data[f"{slug}-chart-spec"]
    bars = {trace["name"]: trace["x"] for trace in spec["data"]}
    assert bars == {name: [row["stages_ms"][name]["median"] for row in rows] for name in names}


def test_claims_are_shown_and_counted(page: Page) -> None:
    table = page.tables["claims-table"]
    verdict = page.heads["claims-table"].index("verdict")
    assert [row[verdict][0].split(" ", 1)[1] for row in table] == list(VERDICTS)
    assert dict.fromkeys(VERDICTS, 1) in page.tallies
    assert page.column("claims-table", "paper")[0] == ("6.9percent", 6.9)
    assert page.column("claims-table", "ours")[0][1] == 6.875
    assert page.column("claims-table", "difference")[0][1] == -0.025
    for word in ("python -m eval.efficiency.flops", "commit abc", "a CPU", "24"):
        assert word in " ".join(cell for cell, _ in table[0])


def test_flops_of_every_row_of_the_paper(tmp_path: Path, page: Page) -> None:
    known = [as_record(row) for row in (*main_rows(), *other_backbone_rows())]
    judge_folder(tmp_path, "-flops-")
    found = made(tmp_path)
    assert found.column("flops", "TFLOPs: paper") == [
        (f"{row['paper_tflops']:.1f}", row["paper_tflops"]) for row in known
    ]
    assert [value for _, value in found.column("flops", "TFLOPs: ours")] == [row["tflops"] for row in known]
    assert {text for text, _ in found.column("flops", "verdict")} == {"✓ reproduced"}
    assert all("not judged" in text for text, _ in page.column("flops", "verdict"))  # its claims say nothing of them


def test_a_number_that_was_not_judged_has_no_verdict(tmp_path: Path) -> None:
    rows = [as_record(row) for row in main_rows()]
    rows[3] |= {"tflops": 9.876, "agrees": False}
    write_json(
        tmp_path / "cpu" / "flops.json", record({"formula": "f", "rows": rows, "real_counts_that_differ": []}, "flops")
    )
    judge_folder(tmp_path, "-flops-")
    found = made(tmp_path)
    assert found.column("flops", "TFLOPs: ours")[3][1] == 9.876
    assert "not judged" in found.column("flops", "verdict")[3][0]
    assert "another measurement" in found.column("flops", "verdict")[3][0]
    assert found.column("flops", "evidence")[3][0] == "cpu/flops.json"
    (tmp_path / "claims.json").unlink()
    assert taken_over(read_sources(tmp_path), "flops-6.9", 6.9, "percent")[0] == "not judged"


def test_printed_scores_are_the_papers(page: Page) -> None:
    printed = page.column("main", "VideoMME: paper")
    expected = [scores.videomme for scores in MAIN_SCORES.values()]
    assert [value for _, value in printed[: len(expected)]] == expected
    assert all("not measured" in text for text, _ in page.column("main", "verdict"))
    assert "bash scripts/eval_ov-7b_rivals.sh" in page.column("main", "verdict")[1][0]


def test_rehearsals_are_not_held_against_the_paper(page: Page) -> None:
    assert all(value is None for _, value in page.column("main", "VideoMME: ours"))
    rows = page.tables["rehearsal-runs"]
    assert [row[0][0] for row in rows] == [f"{MODEL}/holitom_r15", f"{MODEL}/vanilla"]
    assert [float(row[3][1] or 0) for row in rows] == pytest.approx([100 * 7 / 12, 100 * 8 / 12])
    assert all("miniature data" in row[1][0] for row in rows)
    assert "VideoMME: paper" not in " ".join(page.heads["rehearsal-runs"])


def test_real_runs_have_the_verdicts_of_the_claims(tmp_path: Path) -> None:
    """58.3 printed and 59.75 measured on 4,000 questions: one verdict, the same in claims.json and on the page."""
    write_run(tmp_path / "vanilla", f"{MODEL}/vanilla", paper_like(), harness="0.3.0")
    write_run(tmp_path / "holitom", f"{MODEL}/holitom_r15", paper_like(-1.0, -4.0), harness="0.3.0")
    claimed = json.loads(judge_folder(tmp_path, "table1-scores").read_text())["claims"]
    found = made(tmp_path)
    row = next(row for row in found.tables["main"] if row[0][0] == "HoliTom" and row[1][1] == "15.0")
    heads = found.heads["main"]
    paper, ours, gap = (row[heads.index(f"VideoMME: {name}")] for name in ("paper", "ours", "diff."))
    assert float(paper[1] or 0) == 57.3
    assert float(ours[1] or 0) == pytest.approx(100 * round(2700 * 0.536) / 2700)
    assert float(gap[1] or 0) == pytest.approx(float(ours[1] or 0) - 57.3)
    cells = next(one for one in claimed if one["id"] == "table1-scores-holitom-r15")["cells"]
    titles = {"mvbench": "MVBench", "egoschema_subset": "EgoSchema subset", "longvideobench_val_v": "LongVideoBench",
              "videomme": "VideoMME"}  # fmt: skip
    for task, title in titles.items():
        shown = row[heads.index(f"{title}: diff.")][0]
        assert cells[task]["verdict"] in shown
        assert f"u {cells[task]['u']:.2f}" in shown
    assert cells["videomme"]["verdict"] == "contradicted"
    assert cells["egoschema_subset"]["verdict"] == "undecided"
    [summary] = [line for line in found.tables["summary-table"] if line[0][0].startswith("Main table")]
    counted = [one["cells"] for one in claimed if one["cells"]]
    for place, verdict in enumerate(("reproduced", "partly", "undecided", "contradicted")):
        expected = sum(cell["verdict"] == verdict for every in counted for cell in every.values())
        assert float(summary[1 + place][1] or 0) == expected
    assert sum(float(cell[1] or 0) for cell in summary[1:7]) == 92
    assert "A score is reproduced when |d| + 1.645 u" in found.text
    differences = found.tables["main_differences"]
    assert differences[0][0][0] == "HoliTom, 15 %"
    marks = paper_like()["videomme"], paper_like(-1.0, -4.0)["videomme"]
    place = found.heads["main_differences"].index("VideoMME: points")
    assert float(differences[0][place][1] or 0) == pytest.approx(100 * (sum(marks[1]) - sum(marks[0])) / 2700)


def test_the_dispute_about_the_baseline(page: Page, tmp_path: Path) -> None:
    assert "were not compared: bash scripts/harness_030.sh" in page.text
    recorded = json.loads((ROOT / "results" / "harness_versions.json").read_text())
    write_json(tmp_path / "harness_versions.json", recorded)
    found = made(tmp_path)
    reported = {
        (row[0][0], row[5][0]): [float(cell[1]) for cell in row[2:4]] for row in found.tables["reported-scores"]
    }
    assert reported["VideoMME", "EvolvingLMMs-Lab/lmms-eval#1541, 2026-09"] == [58.6, 63.93]
    assert reported["MVBench", "cokeshao/HoliTom#16, 2026-09"] == [58.3, 61.5]
    assert len(found.tables["harness-differences"]) == len(recorded["result"]["differences"])
    scores = {row[0][0]: [float(cell[1]) for cell in row[1:3]] for row in found.tables["harness-log"]}
    assert scores["VideoMME"] == [recorded["result"]["log"][version]["videomme"] for version in ("0.3.0", "0.7.3")]


def test_speed_ups_only_from_a_gpu_at_the_papers_sizes(tmp_path: Path) -> None:
    timed = latency()
    timed["result"]["driver"] = "550"
    write_json(tmp_path / "h200" / "latency_llava-onevision-7b.json", timed)
    judge_folder(tmp_path, "figure-")
    page = made(tmp_path)
    first = page.column("efficiency-figure", "time to first token, times faster: ours")
    labels = [row[0][0] for row in page.tables["efficiency-figure"]]
    full, holitom = EFFICIENCY["Vanilla", 100], EFFICIENCY["HoliTom", 10]
    assert first[labels.index("HoliTom, 10 %")][1] == 2.515625
    paper = page.column("efficiency-figure", "time to first token, times faster: paper")[labels.index("HoliTom, 10 %")][
        1
    ]
    assert paper == (full.tower_ms + full.other_ms + full.llm_ms) / (
        holitom.tower_ms + holitom.other_ms + holitom.llm_ms
    )
    gaps = page.column("efficiency-figure", "time to first token, times faster: diff.")
    assert gaps[labels.index("HoliTom, 10 %")][0].endswith("✓ reproduced")
    assert gaps[labels.index("VisionZip, 20 %")][0].endswith("◐ partly")  # faster, but 1.5 against 2.06
    for place, changes in enumerate(({"cuda": None}, {"geometry": "llava-onevision-0.5b"})):
        data = latency(**{key: value for key, value in changes.items() if key == "cuda"})
        data["result"] |= {key: value for key, value in changes.items() if key == "geometry"}
        write_json(tmp_path / str(place) / "latency.json", data)
        other = made(tmp_path / str(place))
        values = other.column("efficiency-figure", "time to first token, times faster: ours")
        assert all(value is None for _, value in values)


def test_the_slowest_clip_decides_about_a_speed_up(tmp_path: Path) -> None:
    data = latency()
    data["result"]["rows"].append(latency_row("holitom_r10", 90.0, 1.25) | {"clip": "another"})
    write_json(tmp_path / "latency.json", data)
    page = made(tmp_path)
    labels = [row[0][0] for row in page.tables["efficiency-figure"]]
    ours = page.column("efficiency-figure", "time to first token, times faster: ours")
    assert ours[labels.index("HoliTom, 10 %")][1] == 1.25


def test_ablations_and_the_release_switches(page: Page) -> None:
    rows = ablations()["rows"]
    spec = page.data[
        next(name for name in page.data if name.startswith("tiny--ablations--inner-ratio") and "chart" in name)
    ]
    curve = next(trace for trace in spec["data"] if trace.get("x"))
    assert curve["x"] == [0.25, 0.5, 0.9]
    assert curve["y"] == [100 * rows[f"holitom_r15,inner.merge_ratio={value}"]["score"] for value in (0.25, 0.5, 0.9)]
    [effect] = page.tables["deviation-inner-causal"]
    assert [float(cell[1]) for cell in effect if cell[1]] == pytest.approx([87.5, 81.25, -6.25])
    assert "deviation-inner-merge-rule" not in page.tables
    assert "merge rule of the inner stage: not measured" in page.text


def test_instruments_are_called_so(page: Page) -> None:
    # in its section, above its ablations and in none of the paper's tables
    assert page.text.count(NOTICE) == 2
    assert page.text.count("no evidence about the 7B model; they are never held against the paper") == 2
    assert (
        sum(page.tallies[1].values())
        == sum(
            sum(score is not None for score in (s.mvbench, s.egoschema, s.longvideobench, s.videomme))
            for s in MAIN_SCORES.values()
        )
        + 33
        + 12
    )  # FLOPs, and two speed-ups of six methods


def test_evidence_names_command_commit_device_and_samples(page: Page) -> None:
    rows = {row[0][0]: [cell[0] for cell in row] for row in page.tables["evidence-table"]}
    assert rows["tiny/main.json"][1:5] == ["abcdef123456", "a CPU", "8questions", "python -m x"]
    assert rows["cpu/parity.json"][3] == "50cases"
    assert rows["h200/latency_llava-onevision-7b.json"][2:4] == ["NVIDIA H200", "5repetitions"]
    assert rows["rehearsal/vanilla"][3] == "12questions"


def test_the_repositorys_own_results(own_page: OwnPage) -> None:
    """The page of the results that are committed: no damage, small, and every recorded tiny score stands in it."""
    found = Page(own_page.text)
    assert not own_page.problems
    assert len(own_page.text.encode()) < 2_000_000
    assert len(found.sources) > 15  # charts and token maps
    main_table = json.loads((ROOT / "results" / "tiny" / "main.json").read_text())["result"]
    shown = {row[0][0]: row[1][1] for row in found.tables["tiny--main"]}
    assert shown == {
        name: repr(100 * row["score"]) for name, row in main_table["rows"].items()
        if name in main_table["frames"] or name == "blank"
    }  # fmt: skip


def test_same_results_same_bytes(tmp_path: Path) -> None:
    pages = []
    for name in ("one", "two"):
        full_folder(tmp_path / name / "results")
        main([str(tmp_path / name / "results"), "-o", str(tmp_path / name / "report")])
        text = (tmp_path / name / "report" / "index.html").read_text(encoding="utf-8")
        pages.append(text.replace(str(tmp_path / name), ""))
    assert pages[0] == pages[1]


def test_self_contained_with_whole_outline(page: Page) -> None:
    assert all(link == "data:," or link.startswith("#") for link in page.links)
    assert not [source for source in page.sources if not re.match("data:image/(webp;base64|svg[+]xml),", source)]
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))
    assert not [tag for tag, _ in page.tags if tag in ("link", "iframe", "object", "embed", "base")][1:]
    policies = [found["content"] for tag, found in page.tags if tag == "meta" and "http-equiv" in found]
    assert len(policies) == 1
    assert re.match(r"default-src 'none'; script-src ('sha256-[^']+' ?)+;", policies[0] or "")
    for heading in ("Summary", "Claims and verdicts", "Deviations from the release", "Sample browser", "Token maps"):
        assert heading in page.text


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    claims_file = write_json(tmp_path / "elsewhere.json", claims(claim("only", "partly")))
    write_json(tmp_path / "results" / "tiny" / "main.json", record(tiny(TINY)))
    main([str(tmp_path / "results"), "--claims", str(claims_file), "-o", str(tmp_path / "report")])
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    expected = dict.fromkeys(VERDICTS, 0) | {"partly": 1}
    assert said["claims"] == expected
    numbers = {verdict: count for verdict, count in said["numbers"].items() if count}
    assert numbers == {"not judged": 33, "not measured": 104}
    assert said["problems"] == 0
    assert (tmp_path / "report" / "index.html").stat().st_size == said["bytes"]
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == ["index.html"]

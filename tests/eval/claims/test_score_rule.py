"""The one rule of a score's verdict: its bounds by hand, what it needs, and what was simulated about it."""

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.claims.judging import CONTRADICTED, PARTLY, REPRODUCED, UNDECIDED
from eval.claims.operating_characteristics import OTHERS, SHAPES, coverage, main, paired, table, verdicts
from eval.claims.score_rule import (
    CONTRADICTING,
    RULE,
    Measured,
    combined,
    judge_lead,
    judge_ratio,
    judge_score,
    one_sided,
    rule_sentence,
    verdict_of,
)
from llava.errors import InputError

RECORDED = Path(__file__).parents[3] / "results" / "verdict_rule.json"


def independent(score: float, questions: int, overlap: str = "same") -> Measured:
    share = score / 100
    return Measured(score, 100 * math.sqrt(share * (1 - share) / questions), share * (1 - share), questions, overlap)


def test_standard_errors_of_the_difference_by_hand() -> None:
    rounded = 0.01 / 12
    # two runs that differ on 5 % of 2,700 answers, half of them in each direction
    same = judge_score(58.6, independent(58.6, 2700))
    assert same.error == pytest.approx(math.sqrt(1e4 * 0.05 / 2700 + rounded))
    other = judge_score(58.6, independent(58.6, 2700, "other"))
    assert other.error == pytest.approx(math.sqrt(2 * 1e4 * 0.586 * 0.414 / 2700 + rounded))
    part = judge_score(60.0, independent(60.0, 500, "subset"))
    assert part.error == pytest.approx(math.sqrt(1e4 * 0.24 / 500 * (1 - 500 / 5031) + rounded))
    clustered = judge_score(58.6, Measured(58.6, 2.0, 0.25, 2700))
    assert clustered.error == pytest.approx(math.sqrt(4 * 0.05 / 0.25 + rounded))
    assert judge_score(0.0, Measured(0.0, 0.0, 0.0, 50)).error == pytest.approx(math.sqrt(1e4 * 0.05 / 50 + rounded))


@pytest.mark.parametrize(
    ("difference", "error", "verdict"),
    [
        (0.0, 0.9, REPRODUCED), (0.0, 0.92, UNDECIDED), (0.67, 0.5, REPRODUCED), (-0.68, 0.5, UNDECIDED),
        (1.5, 0.0, REPRODUCED), (1.51, 0.1, CONTRADICTED), (1.49, 0.1, UNDECIDED), (-1.7, 0.48, UNDECIDED),
        (-1.72, 0.48, CONTRADICTED), (3.0, 0.85, UNDECIDED), (3.03, 0.85, CONTRADICTED),
    ],
)  # fmt: skip
def test_bounds_by_hand(difference: float, error: float, verdict: str) -> None:
    assert verdict_of(difference, error) == verdict


def test_the_bound_is_that_of_all_cells_together() -> None:
    assert one_sided(1 - (1 - 0.05) ** (1 / 132)) == pytest.approx(3.36, abs=0.01)  # one side
    assert 2 * 132 * 0.5 * math.erfc(CONTRADICTING / math.sqrt(2)) == pytest.approx(0.05, abs=1e-3)  # both, Bonferroni


@given(
    st.floats(-4, 4), st.sampled_from(["same", "other"]), st.integers(200, 4000), st.floats(1.0, 2.0)
)  # fmt: skip
def test_the_number_of_questions_decides_and_fewer_do_not(gap: float, overlap: str, count: int, design: float) -> None:
    def at(questions: int):
        return judge_score(50.0, Measured(50 + gap, design * 50 / math.sqrt(questions), 0.25, questions, overlap))

    found = at(count)
    if found.verdict != UNDECIDED:
        assert found.needed is None
    elif found.needed is not None and found.needed < 10**7:
        assert found.needed > count
        assert at(found.needed + 1).verdict != UNDECIDED
        assert at(max(1, int(0.99 * found.needed) - 1)).verdict == UNDECIDED


def test_questions_of_the_subset_that_would_decide() -> None:
    found = judge_score(60.4, independent(60.4, 500, "subset"))
    assert found.verdict == UNDECIDED
    assert found.needed is not None
    assert judge_score(60.4, independent(60.4, found.needed, "subset")).verdict == REPRODUCED
    assert judge_score(60.4, independent(60.4, found.needed - 2, "subset")).verdict == UNDECIDED


def test_a_row_of_scores() -> None:
    assert combined([REPRODUCED] * 4, 4) == REPRODUCED
    assert combined([REPRODUCED] * 3, 4) == PARTLY
    assert combined([REPRODUCED, UNDECIDED], 2) == PARTLY
    assert combined([UNDECIDED], 1) == UNDECIDED
    assert combined([REPRODUCED, UNDECIDED, CONTRADICTED], 3) == CONTRADICTED
    with pytest.raises(ValueError, match="no score"):
        combined([], 4)


def test_a_ratio_takes_the_error_of_its_paired_parts() -> None:
    part = {"error": 0.4, "rerun": 0.3, "overlap": "same", "questions": 500}
    one = judge_ratio(99.1, 99.5, {"a": part, "b": {**part, "overlap": "subset"}, "c": {**part, "overlap": "other"}})
    expected = 0.09 + 0.16 * (1 - 500 / 5031) + 0.32 + 0.01 / 12
    assert one.error == pytest.approx(math.sqrt(expected))
    assert one.difference == pytest.approx(0.4)


def test_a_tie_is_undecided() -> None:
    assert judge_lead({"a": (0.0, 0.4), "b": (2.0, 0.4)}) == UNDECIDED
    assert judge_lead({"a": (0.7, 0.4), "b": (2.0, 0.4)}) == REPRODUCED
    assert judge_lead({"a": (-0.8, 0.4)}) == CONTRADICTED
    assert judge_lead({"a": (-0.8, 0.4), "b": (2.0, 0.4), "c": (2.0, 0.4)}) == UNDECIDED  # one of three may be chance
    with pytest.raises(ValueError, match="no rival"):
        judge_lead({})


@pytest.mark.parametrize("wrong", [{"overlap": "some"}, {"questions": 0}, {"error": math.nan}, {"variance": 0.3}])
def test_wrong_measurements_are_refused(wrong: dict) -> None:
    with pytest.raises(InputError):
        Measured(**{"score": 50.0, "error": 1.0, "variance": 0.25, "questions": 100, **wrong})


def test_what_was_simulated() -> None:
    """The recorded table: intervals cover, p-values are uniform, truths are rarely contradicted."""
    found = json.loads(RECORDED.read_text())["result"]
    for name in SHAPES:
        assert 0.94 <= found["coverage"][name] <= 0.96
        exact = found["paired"][name]["test"].startswith("McNemar")  # discrete: it errs to the safe side
        assert exact == (name == "EgoSchema, subset")
        assert found["paired"][name]["uniform"] or exact
        assert (0.02 if exact else 0.035) <= found["paired"][name]["rejected"]["0.05"] <= 0.065
        assert 0.93 <= found["paired_coverage"][name] <= 0.97
        assert found["power"][name]["0"]["contradicted"] <= 0.01
        assert found["power"][name]["3"]["reproduced"] <= 0.01
    assert found["power"]["MVBench"]["3"]["contradicted"] > 0.95
    for name in OTHERS:
        assert 0.925 <= found["coverage"][name] <= 0.97
    many = found["paired"]["12 questions a video"]
    assert many["rejected"]["0.05"] < 0.07 < 0.09 < many["mcnemar_rejected"]["0.05"]
    assert found["family"]["contradicted"] < 0.5
    assert found["best_of_all"]["0"]["contradicted"] <= 0.08
    assert found["best_of_all"]["2"]["reproduced"] > 0.95
    sentence = rule_sentence(found)
    assert sentence.startswith(RULE)
    assert f"{found['family']['reproduced']:.0f} are called reproduced" in sentence
    assert "not recorded" in rule_sentence(None)
    assert "| MVBench |" in table(found)


def test_a_slice_of_the_simulation() -> None:
    assert 0.85 <= coverage(OTHERS["8 videos"], 100, 1) <= 1
    alike = verdicts(SHAPES["VideoMME"], 0, 30, 2, 0.05)
    apart = verdicts(SHAPES["VideoMME"], 3, 30, 3, 0.05)
    assert alike["contradicted"] == 0
    assert alike["reproduced"] > 0.5
    assert apart["reproduced"] == 0
    assert apart["contradicted"] > 0.8
    chance = paired(OTHERS["12 questions a video"], 60, 4)
    assert chance["rejected"]["0.1"] <= 0.25


def test_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--repetitions", "1"])
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["kind"] == "verdict_rule"
    with pytest.raises(SystemExit) as stop:
        main(["--repetitions", "0"])
    assert stop.value.code == 2

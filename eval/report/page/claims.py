"""What the paper claims, and what the checks of this machine found: the output of ``eval.claims``."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

from eval.claims.judging import CONTRADICTED, NOT_HERE, PARTLY, REPRODUCED, UNDECIDED
from eval.claims.score_rule import rule_sentence
from eval.report.page.blocks import (
    ABSENT,
    Block,
    Cell,
    Column,
    Notice,
    Section,
    Sheet,
    Text,
    figure,
)
from eval.report.page.sources import ResultFile, Sources
from llava.errors import InputError

VERDICTS = (REPRODUCED, PARTLY, UNDECIDED, CONTRADICTED, NOT_HERE)
MAKE = "bash scripts/verify_claims.sh (ten minutes with --quick)"


def claims_of(sources: Sources) -> list[Mapping[str, Any]]:
    """The claims that are whole; a damaged one is named among the problems."""
    if sources.claims is None:
        return []
    if sources.whole_claims is None:
        sources.whole_claims = []
        for place, claim in enumerate(sources.claims.result["claims"]):
            name = f"{sources.claims.path}, claim {place + 1}"
            sources.whole_claims += sources.tried(name, _checked, claim)
    return sources.whole_claims


def _checked(claim: Any) -> Mapping[str, Any]:
    if not isinstance(claim, dict) or claim.get("verdict") not in VERDICTS:
        found = claim.get("verdict") if isinstance(claim, dict) else claim
        raise InputError(f"verdict {found!r} is none of {', '.join(VERDICTS)}: run scripts/verify_claims.sh again")
    _row(claim)
    return claim


def judged_claim(sources: Sources, identity: str) -> Mapping[str, Any] | None:
    """The claim of a name, or None."""
    return next((claim for claim in claims_of(sources) if claim["id"] == identity), None)


def verdict_rule(sources: Sources) -> str:
    """The rule by which scores are judged, with the error rates of the recorded simulation."""
    recorded = sources.of("verdict_rule")
    return rule_sentence(recorded[0].result if recorded else None)


def claims_tally(sources: Sources) -> dict[str, int]:
    """How many claims have which verdict."""
    counts = Counter(claim["verdict"] for claim in claims_of(sources))
    return {verdict: counts[verdict] for verdict in VERDICTS}


def claims_section(sources: Sources) -> Section:
    """Claim, numbers, verdict and evidence."""
    record = sources.claims
    if record is None:
        text = f"Not checked: there is no claims.json among the results. Make it with {MAKE}."
        return Section("claims", "Claims and verdicts", [Notice(text, "absent")])
    columns = [
        Column("verdict"),
        Column("claim", wide=True),
        Column("ours"),
        Column("paper"),
        Column("difference"),
        Column("source"),
        Column("why", wide=True),
        Column("samples"),
        Column("evidence", wide=True),
    ]
    rows = [_row(claim) for claim in claims_of(sources)]
    blocks: list[Block] = [Text([_made(record)])]
    if record.data.get("quick") is True:
        blocks.append(Notice("A quick check: long measurements were left out or made on fewer samples.", "instrument"))
    blocks.append(Notice(verdict_rule(sources), "rule"))
    blocks.append(Sheet("claims-table", "Every claim", columns, rows))
    return Section("claims", "Claims and verdicts", blocks)


def _made(record: ResultFile) -> str:
    facts = [f"{key} {record.data[key]}" for key in ("commit", "device", "torch", "date") if record.data.get(key)]
    return f"From {record.path}: {', '.join(facts)}. Verdicts follow from the numbers; none is written by hand."


def _row(claim: Mapping[str, Any]) -> list[Cell]:
    evidence = claim["evidence"]
    named = {"commit": "commit ", "device": "", "file": "", "when": ""}
    facts = [f"{word}{evidence[key]}" for key, word in named.items() if evidence.get(key)]
    samples = evidence.get("samples")
    needs = f"needs {claim['needs']}" if claim.get("needs") else ""
    return [
        Cell("", verdict=str(claim["verdict"])),
        Cell(str(claim["claim"]), small=str(claim["id"])),
        _numbers(claim.get("ours")),
        _numbers(claim["paper"]),
        _numbers(claim.get("difference")),
        Cell(str(claim["source"])),
        Cell(str(claim["why"]), small=needs),
        figure(samples, 0) if isinstance(samples, int | float) else Cell(ABSENT),
        Cell(str(evidence["command"] or ABSENT), code=bool(evidence["command"]), small=", ".join(facts)),
    ]


def numbers_of(value: Any) -> str:
    """Numbers with their names as one text."""
    return "; ".join(f"{_short(part)} {name}" for name, part in value.items()) if isinstance(value, dict) else ""


def _numbers(value: Any) -> Cell:
    """Numbers with their names, as they come."""
    if value is None:
        return Cell(ABSENT)
    if isinstance(value, bool | str):
        return Cell(str(value))
    if isinstance(value, int | float):
        return Cell(_short(value), float(value))
    if isinstance(value, dict) and all(isinstance(part, int | float) for part in value.values()) and len(value) == 1:
        name, part = next(iter(value.items()))
        return Cell(_short(part), float(part), small=str(name))
    if isinstance(value, dict):
        return Cell("; ".join(f"{name} {_short(part)}" for name, part in value.items()))
    return Cell(json.dumps(value))


def _short(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, float):
        return value if isinstance(value, str) else json.dumps(value)
    return f"{value:.4g}"

"""Run the steps that the claims need, judge, and write ``claims.json``."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from eval.claims import SCHEMA
from eval.claims.evidence import STEPS
from eval.claims.judging import CONTRADICTED, NOT_HERE, Claim, Evidence, Judgement, StepEvidence, judged
from eval.claims.steps import Context, Step, take
from eval.instruments.cli import provenance
from eval.instruments.kinds import stamped
from eval.instruments.record import finite, write_whole

CLAIMS = "claims.json"


def needed_steps(claims: Sequence[Claim], steps: Mapping[str, Step] = STEPS) -> list[Step]:
    """Every step that one of the claims may rest on, in the order of the steps."""
    named = {name for claim in claims for name in claim.steps}
    return [step for name, step in steps.items() if name in named]


def gather(
    claims: Sequence[Claim],
    context: Context,
    report: Callable[[Step, StepEvidence | None], None] = lambda step, given: None,
    steps: Mapping[str, Step] = STEPS,
) -> dict[str, StepEvidence]:
    """Evidence of all steps by name; ``report`` is called before each (with None) and after it."""
    found = {}
    for step in needed_steps(claims, steps):
        report(step, None)
        found[step.name] = take(step, context)
        report(step, found[step.name])
    return found


def record_of(claim: Claim, judgement: Judgement, evidence: Evidence, here: Mapping[str, Any]) -> dict[str, Any]:
    """One claim as ``claims.json`` has it; ``here`` is the provenance of what was tried and gave nothing."""
    speaking = next((name for name in claim.steps if evidence[name].result is not None), claim.steps[0])
    by = judgement.by or (claim.steps[0] if judgement.verdict == NOT_HERE else speaking)
    spoke = evidence[by]
    source = {name: getattr(spoke, name) for name in ("command", "commit", "device", "samples", "file", "when")}
    if spoke.result is None:  # tried here, and nothing was measured
        source |= {"commit": here["commit"], "device": here["device"], "samples": 0}
        source["command"] = STEPS[by].command if by in STEPS else spoke.command
    return {
        "id": claim.identity,
        "kind": claim.kind,
        "source": claim.source,
        "claim": claim.text,
        "paper": dict(claim.paper),
        "ours": judgement.ours,
        "difference": judgement.difference,
        "verdict": judgement.verdict,
        "why": judgement.why,
        "needs": judgement.needs,
        "cells": judgement.cells,
        "evidence": source,
        "seconds": round(spoke.seconds, 2),
    }


def verdicts(claims: Sequence[Claim], evidence: Evidence) -> list[dict[str, Any]]:
    """Every claim with its verdict."""
    here = provenance()  # asks git, which one claim after the other would do for the same answer
    return [record_of(claim, judged(claim, evidence), evidence, here) for claim in claims]


def write_claims(records: Sequence[Mapping[str, Any]], context: Context, seconds: float) -> Path:
    """``claims.json`` of a finished run."""
    facts = {"schema": SCHEMA, **provenance(), "quick": context.quick, "seconds": round(seconds, 1)}
    document = stamped("claims", {**facts, "claims": finite(list(records))})
    path = context.output / CLAIMS
    write_whole(path, json.dumps(document, indent=1, allow_nan=False) + "\n")
    return path


def contradicted(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of the claims that are."""
    return [str(record["id"]) for record in records if record["verdict"] == CONTRADICTED]


def verify(claims: Sequence[Claim], context: Context, report: Any = lambda step, given: None) -> list[dict[str, Any]]:
    """Gather, judge and write; returns the records."""
    start = time.monotonic()
    records = verdicts(claims, gather(claims, context, report))
    write_claims(records, context, time.monotonic() - start)
    return records

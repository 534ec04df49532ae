"""The first screen: the abstract's claims as cards, counts by kind, and what contradicts or surprises.

Everything is read from ``claims.json`` and the recorded results; nothing is judged here and no number is typed in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from eval.claims.judging import NOT_HERE
from eval.report.page.blocks import Block, Card, Cards, Cell, Column, Notice, Section, Sheet
from eval.report.page.claims import VERDICTS, claims_of, numbers_of
from eval.report.page.sources import Sources

# the claims that the abstract makes, by their names in claims.json
ABSTRACT = ("accuracy-99.1", "ttft-2.28", "decode-1.32", "flops-6.9", "tokens-90", "rule-training-free")
ARITHMETIC, RULE, ACCURACY, SPEED = "arithmetic", "rule of the method", "accuracy", "speed"
_SPEED, _ARITHMETIC = ("ttft", "decode", "figure-"), ("flops", "tokens")
_RULES = ("rule-", "release-", "optimal-")


def kind_of_claim(identity: str) -> str:
    """Which kind of evidence a claim asks for."""
    if identity.startswith(_SPEED):
        return SPEED
    if identity.startswith(_RULES):
        return RULE
    return ARITHMETIC if any(word in identity.split("-") for word in _ARITHMETIC) else ACCURACY


def first_screen(sources: Sources) -> Section:
    """Cards and counts."""
    claims = claims_of(sources)
    if not claims:
        return Section("first", "The verdict", [Notice("The claims were not checked: no claims.json.", "absent")])
    known = {str(claim["id"]): claim for claim in claims}
    cards = [_card(known[name]) for name in ABSTRACT if name in known]
    return Section("first", "The verdict", [Cards("The abstract's claims", cards), _counts(claims)])


def _card(claim: Mapping[str, Any]) -> Card:
    absent = claim["verdict"] == NOT_HERE
    needs, _, command = str(claim.get("needs") or "").partition(": ")
    evidence = claim["evidence"]
    samples = evidence.get("samples")
    sure = f"{samples} samples, {evidence.get('device')}" if samples else str(evidence.get("device") or "by arithmetic")
    shown = numbers_of(claim.get("ours"))
    return Card(
        str(claim["claim"]), numbers_of(claim["paper"]) or "yes or no",
        "not measured here" if absent else shown, f"needs {needs}" if absent else sure,
        Cell(verdict=str(claim["verdict"])), command if absent else str(evidence.get("command") or ""),
    )  # fmt: skip


def _counts(claims: list[Mapping[str, Any]]) -> Sheet:
    found = Counter((kind_of_claim(str(claim["id"])), claim["verdict"]) for claim in claims)
    rows = [
        [Cell(kind), *(Cell(str(found[kind, name]), float(found[kind, name])) for name in VERDICTS)]
        for kind in (ARITHMETIC, RULE, ACCURACY, SPEED)
    ]
    columns = [Column("kind of claim"), *map(Column, VERDICTS)]
    note = "Arithmetic and rules of the method say nothing about accuracy or speed: read each line alone."
    return Sheet("kinds-table", "All claims, by what they rest on", columns, rows, (note,))


def surprises(sources: Sources) -> Section:
    """What contradicts or surprises, each with its number from the records."""
    known = {str(claim["id"]): claim for claim in claims_of(sources)}
    rows = []
    for makers in (_contradicted, _everything, _decoding, _mask):
        rows += [row for made in sources.tried("surprises", makers, sources, known) for row in made]
    columns = [Column("what", wide=True), Column("number", wide=True), Column("from", wide=True)]
    blocks: list[Block] = [Sheet("surprise-table", "What contradicts or surprises", columns, rows)]
    return Section("surprises", "What contradicts or surprises", blocks)


def _contradicted(_: Sources, known: Mapping[str, Any]) -> list[list[Cell]]:
    return [
        [Cell(str(claim["claim"])), Cell(numbers_of(claim.get("ours"))), Cell(str(claim["why"]))]
        for claim in known.values()
        if claim["verdict"] == "contradicted"
    ]


def _everything(_: Sources, known: Mapping[str, Any]) -> list[list[Cell]]:
    if "flops-6.9-everything" not in known:
        return []
    claim = known["flops-6.9-everything"]
    what = "Behind the 6.9 % of the FLOPs, which count visual tokens alone: the share of the LLM and of the whole model"
    return [[Cell(what), Cell(numbers_of(claim["ours"])), Cell(str(claim["evidence"]["command"]), code=True)]]


def _decoding(sources: Sources, _: Mapping[str, Any]) -> list[list[Cell]]:
    rows = []
    for record in sources.of("decode"):
        line = next(row for row in record.result["rows"] if row["config"] == "holitom_r10")
        ratios = {name: ratio for name, ratio in line["against_vanilla"].items() if ratio is not None}
        said = "Decoding speed against all tokens: much of it is avoidable copies of the cache, by kind of cache"
        rows.append([Cell(said), Cell(numbers_of(ratios)), Cell(record.path, code=True)])
    return rows


def _mask(sources: Sources, _: Mapping[str, Any]) -> list[list[Cell]]:
    rows = []
    for record in sources.of("tiny"):
        grid = record.result["ablations"].get("mask") if record.result.get("ablations") else None
        if grid is not None:
            scores = {name: 100 * float(record.result["rows"][name]["score"]) for name in grid["points"]}
            what = "The attention mask of layer K-1 in the release: score of the tiny model (an instrument), %"
            rows.append([Cell(what), Cell(numbers_of(scores)), Cell(record.path, code=True)])
    return rows

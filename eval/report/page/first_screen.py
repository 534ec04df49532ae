"""The first screen: the abstract's claims as cards, counts by kind, and what contradicts or surprises.

Everything is read from ``claims.json`` and the recorded results; nothing is judged here and no number is typed in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import cache
from typing import Any

from eval.claims.catalogue import all_claims
from eval.claims.judging import KINDS, NOT_HERE, Kind
from eval.report.page.blocks import Card, Cards, Cell, Column, Highlights, Notice, Section, Sheet
from eval.report.page.claims import VERDICTS, claims_of, numbers_of
from eval.report.page.sources import Sources

# the claims that the abstract makes, by their names in claims.json
ABSTRACT = ("accuracy-99.1", "ttft-2.28", "decode-1.32", "flops-6.9", "tokens-90", "rule-training-free")
UNKNOWN_KIND = "unknown kind"
_SHOWN = 2  # numbers of a card
Fact = tuple[str, str, str]  # number, sentence, source


def kind_of_claim(claim: Mapping[str, Any]) -> str:
    """What a claim is about: as its record says, or, of records that do not, as the claim of that name says today."""
    return str(claim.get("kind") or _kinds_today().get(str(claim["id"])) or UNKNOWN_KIND)


@cache
def _kinds_today() -> dict[str, Kind | None]:
    return {claim.identity: claim.kind for claim in all_claims()}


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
    return Card(
        str(claim["claim"]),
        numbers_of(claim["paper"]) or "yes or no",
        "not measured here" if absent else _measured(claim.get("ours")),
        f"needs {needs}" if absent else sure,
        Cell(verdict=str(claim["verdict"])),
        command if absent else str(evidence.get("command") or ""),
    )


def _measured(ours: Any) -> str:
    """The first numbers as they are, and of statements how many hold."""
    if isinstance(ours, dict) and ours and all(isinstance(value, bool) for value in ours.values()):
        return f"{sum(ours.values())} of {len(ours)} statements hold"
    if isinstance(ours, dict) and len(ours) > _SHOWN:
        shown = dict(list(ours.items())[:_SHOWN])
        return f"{numbers_of(shown)}; {len(ours) - _SHOWN} more in the table of claims"
    return numbers_of(ours)


def _counts(claims: list[Mapping[str, Any]]) -> Sheet:
    found = Counter((kind_of_claim(claim), claim["verdict"]) for claim in claims)
    kinds = [*KINDS, *sorted({kind for kind, _ in found} - set(KINDS))]
    rows = [
        [Cell(kind), *(Cell(str(found[kind, name]), float(found[kind, name])) for name in VERDICTS)] for kind in kinds
    ]
    columns = [Column("kind of claim"), *map(Column, VERDICTS)]
    note = "Arithmetic and rules of the method say nothing about accuracy or speed: read each line alone."
    return Sheet("kinds-table", "All claims, by what they rest on", columns, rows, (note,))


def surprises(sources: Sources) -> Section:
    """What contradicts or surprises, each with its number from the records."""
    known = {str(claim["id"]): claim for claim in claims_of(sources)}
    facts: list[Fact] = []
    for makers in (_contradicted, _everything, _decoding, _mask, _large_script, _best):
        facts += [fact for made in sources.tried("surprises", makers, sources, known) for fact in made]
    title = "What contradicts or surprises"
    if not facts:
        return Section("surprises", title, [Notice("Nothing that is recorded here does.", "absent")])
    return Section("surprises", title, [Highlights("surprise-facts", title, facts)])


def _contradicted(_: Sources, known: Mapping[str, Any]) -> list[Fact]:
    return [
        (numbers_of(claim.get("ours")), f"Contradicted: {claim['claim']}. {claim['why']}", str(claim["source"]))
        for claim in known.values()
        if claim["verdict"] == "contradicted"
    ]


def _everything(_: Sources, known: Mapping[str, Any]) -> list[Fact]:
    if "flops-6.9-everything" not in known:
        return []
    claim = known["flops-6.9-everything"]
    language, whole = (claim["ours"][name] for name in ("llm percent", "total percent"))
    what = (
        f"stand behind the {claim['paper']['percent']} % of the FLOPs, which count visual tokens alone: the first is "
        "the prefill of the language model with all its products, the second that of the whole model, tower included."
    )
    return [(f"{language:.2f} % and {whole:.2f} %", what, str(claim["evidence"]["command"]))]


def _decoding(sources: Sources, _: Mapping[str, Any]) -> list[Fact]:
    rows = []
    for record in sources.of("decode"):
        line = next(row for row in record.result["rows"] if row["config"] == "holitom_r10")
        ratios = [f"{ratio:.2f}x {name}" for name, ratio in line["against_vanilla"].items() if ratio is not None]
        what = (
            "is the decoding speed at 10 % against all tokens, by kind of cache: what the library's growing cache "
            f"shows is mostly copies that a static one avoids ({record.data['device']})."
        )
        rows.append((", ".join(ratios), what, record.path))
    return rows


def _mask(sources: Sources, _: Mapping[str, Any]) -> list[Fact]:
    rows = []
    for record in sources.of("tiny"):
        grid = record.result["ablations"].get("mask") if record.result.get("ablations") else None
        if grid is None:
            continue
        scores: dict[str, dict[str, float]] = {}
        for name, point in grid["points"].items():
            changes = dict(change.split("=") for change in point["changes"])
            found = scores.setdefault(changes.get("inner.merge_layer", ""), {})
            found[changes.get("inner.causal", "")] = 100 * float(record.result["rows"][name]["score"])
        said = [
            f"{pair['false']:.1f} % instead of {pair['true']:.1f} % at layer {layer}"
            for layer, pair in scores.items()
            if {"false", "true"} <= pair.keys()
        ]
        if not said:
            continue
        what = (
            "is the score of the tiny model (an instrument) with the mask of layer K-1 as in the release: not causal, "
            "so that visual tokens see the question, which the paper does not mention. Here it is causal by default."
        )
        rows.append(("; ".join(said), what, record.path))
    return rows


def _large_script(_: Sources, known: Mapping[str, Any]) -> list[Fact]:
    """The release's script for 72B, by the FLOPs of the two rows between which it decides."""
    names = ("table2-ov-72b-flops-holitom-without-inner-r15", "table2-ov-72b-flops-holitom-r15")
    if not all(name in known for name in names):
        return []
    off, on = (known[name]["ours"]["TFLOPs"] for name in names)
    what = (
        "is the prefill of LLaVA-OneVision-72B at 15 % as the release's script runs it: it sets variables that "
        "nothing reads, so the inner stage of the printed row is off. Here it is on."
    )
    return [(f"{off:.1f} instead of {on:.1f} TFLOPs", what, "configs/llava_onevision_72b/holitom_r15.yaml")]


def _best(_: Sources, known: Mapping[str, Any]) -> list[Fact]:
    """Who is ahead of HoliTom at 10 % where only the tiny model could be asked."""
    claim = known.get("table1-best-r10")
    start = "tiny model, "
    ours = (claim or {}).get("ours") or {}
    scores = {name.removeprefix(start): 100 * value for name, value in ours.items() if name.startswith(start)}
    if claim is None or "holitom_r10" not in scores:
        return []
    ahead = [f"{name} {score:.1f}" for name, score in scores.items() if score > scores["holitom_r10"]]
    if not ahead:
        return []
    what = "stand before HoliTom at 10 % on the tiny model (an instrument), where the paper puts HoliTom first."
    number = f"{', '.join(ahead)} % against {scores['holitom_r10']:.1f} %"
    return [(number, what, str(claim["evidence"].get("file") or claim["evidence"]["command"]))]

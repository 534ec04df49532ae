"""All claims in the order in which they are shown."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from eval.claims.ablation_claims import ablation_claims
from eval.claims.flops_claims import abstract_claims, table_claims
from eval.claims.judging import ACCURACY, ARITHMETIC, RULE, SPEED, Claim, Kind
from eval.claims.newer_claims import newer_score_claims, newer_speed_claims
from eval.claims.rule_claims import rule_claims
from eval.claims.score_claims import accuracy_claims
from eval.claims.speed_claims import speed_claims


def all_claims() -> list[Claim]:
    """The abstract's claims first, then tables, figures, ablations and the rules of the method; younger papers last."""
    claims = [
        *_of(ARITHMETIC, abstract_claims()),
        *_of(ACCURACY, accuracy_claims()),
        *_of(SPEED, speed_claims()),
        *_of(ARITHMETIC, table_claims()),
        *_of(ACCURACY, ablation_claims()),
        *_of(RULE, rule_claims()),
        *_of(ACCURACY, newer_score_claims()),
        *_of(SPEED, newer_speed_claims()),
    ]
    abstract = [claim for claim in claims if claim.source.startswith("abstract")]
    return [*abstract, *(claim for claim in claims if not claim.source.startswith("abstract"))]


def _of(kind: Kind, claims: Iterable[Claim]) -> list[Claim]:
    """The claims of a family, each with the family's kind unless it has its own."""
    return [claim if claim.kind else replace(claim, kind=kind) for claim in claims]

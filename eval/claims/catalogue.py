"""All claims in the order in which they are shown."""

from __future__ import annotations

from eval.claims.ablation_claims import ablation_claims
from eval.claims.flops_claims import abstract_claims, table_claims
from eval.claims.judging import Claim
from eval.claims.rule_claims import rule_claims
from eval.claims.score_claims import accuracy_claims, newer_claims
from eval.claims.speed_claims import newer_speed_claims, speed_claims


def all_claims() -> list[Claim]:
    """The abstract's claims first, then tables, figures, ablations and the rules of the method; younger papers last."""
    claims = [*abstract_claims(), *accuracy_claims(), *speed_claims(), *table_claims(), *ablation_claims()]
    claims += [*rule_claims(), *newer_claims(), *newer_speed_claims()]
    abstract = [claim for claim in claims if claim.source.startswith("abstract")]
    return [*abstract, *(claim for claim in claims if not claim.source.startswith("abstract"))]

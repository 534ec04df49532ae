"""The paper's claims, each with what was measured about it and a verdict: the parts of :mod:`eval.claims`.

``claims.json`` is one document::

    {"schema": 1, "quick": bool, "seconds": float, "commit", "device", ... (eval.instruments.cli.provenance),
     "claims": [{"id", "source": "abstract" | "table 1" | ..., "claim": text,
                 "paper": {name: number as printed}, "ours": {name: number} | null,
                 "difference": number | {name: number} | null,
                 "verdict": "reproduced" | "contradicted" | "partly" | "undecided" | "not measurable here",
                 "why": text, "needs": text | null, "seconds": float,
                 "cells": {task: {"ours", "verdict", "difference", "u", "needed", "why"}} | null,
                 "evidence": {"command", "commit", "device", "samples", "file", "when": "now" | "kept" | "recorded"}}]}

``when`` says where the evidence came from: measured in this run, kept from an earlier run of the same code and inputs,
or recorded in ``results/``. StepEvidence that does not exist has null in all its fields. Numbers are measured by the
functions of ``evidence*.py``, and compared by those of ``judging.py`` with tolerances that stand beside the claims;
scores are judged by the one rule of ``score_rule.py``.
"""

SCHEMA = 1

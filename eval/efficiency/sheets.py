"""The columns of every table of efficiency, described once; the commands print them and the report sets them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from eval.instruments.sheets import ABSENT, OnPage, TableColumn, factor, milliseconds, per, tenths

Row = Mapping[str, Any]
OUTER_NAMES = {"holitom": "this project", "plain": "plain restatement of the release's steps"}


def span(value: Mapping[str, float]) -> str:
    """The range, without decimals."""
    return f"({value['min']:.0f} to {value['max']:.0f})"


def spread(value: Mapping[str, float]) -> str:
    """Median and range, without decimals."""
    return f"{value['median']:.0f} {span(value)}"


def first_count(text: str) -> float:
    """Of counts such as ``6272 > 1254``."""
    return float(text.partition(" ")[0])


_ANY = (OnPage(optional=True),)
_COUNTS, _TFLOPS, _SPREADS = "visual tokens", "TFLOPs", "ms, median (range)"
TOKENS = (
    TableColumn("config", page=(OnPage("configuration", code=True),)),
    TableColumn("nominal tokens", "nominal", page=(OnPage("nominal", _COUNTS, sorted_by=first_count, optional=True),)),
    TableColumn("real tokens", "measured", page=(OnPage("measured", _COUNTS, sorted_by=first_count, optional=True),)),
    TableColumn("kept", "retained_before_llm", ".1%", detail=True, page=(OnPage("kept, %"),)),
    TableColumn("nominal T", "nominal_tflops", ".2f", page=(OnPage("nominal", _TFLOPS, optional=True),)),
    TableColumn("real T", "measured_tflops", ".2f", page=(OnPage("measured", _TFLOPS, optional=True),)),
)
_OWN_MS = (OnPage(group="ms", optional=True),)
METHODS = (
    TableColumn("method", page=(OnPage(code=True),)),
    TableColumn("tokens to LLM", "tokens_to_llm", detail=True, page=(OnPage("tokens to the LLM", optional=True),)),
    TableColumn("tower signals", "signals_ms", ".1f", page=_OWN_MS),
    TableColumn("outer stage", "outer_ms", ".1f", page=_OWN_MS),
    TableColumn("inner stage", "inner_ms", ".1f", page=_OWN_MS),
    TableColumn("total", "total_ms", ".1f", page=(OnPage(group="ms"),)),
    TableColumn("/ uniform", "ratio", ".1f"),
)
OUTER = (
    TableColumn("", "name", page=(OnPage(),)),
    TableColumn("CPU ms, median (range)", "cpu_ms", spread, page=_ANY),
    TableColumn(
        "wall ms", "wall_ms.median", ".0f", page=(OnPage("wall ms, median (range)", key="wall_ms", optional=True),)
    ),
)
KERNELS = (
    TableColumn("", "name"),
    TableColumn("type", "dtype"),
    TableColumn("ms", form=".3f"),
    TableColumn("ratio", form=".2f"),
    TableColumn("error", form=".1e"),
    TableColumn("plain code's", "plain_error", ".1e"),
    TableColumn("operators"),
    TableColumn("launches", form="d"),
    TableColumn("syncs"),
)


_PLAIN = (OnPage(),)


def _beside(*last: TableColumn) -> tuple[TableColumn, ...]:
    return (
        TableColumn("cell", page=_PLAIN),
        TableColumn("type", "dtype", page=_PLAIN),
        TableColumn("ours, CPU ms", "times.ours.cpu_ms", tenths, page=_PLAIN),
        TableColumn("release's steps", "times.plain.cpu_ms", tenths, page=_PLAIN),
        TableColumn("ratio", "cpu_ratio", ".2f", page=_PLAIN),
        TableColumn("page faults of these", "times.plain.page_faults.median", ".0f", short="faults", page=_PLAIN),
        TableColumn("ratio, freed memory kept", "kept.cpu_ratio", ".2f", short="kept", page=(OnPage(optional=True),)),
        *last,
    )


# rows of eval.efficiency.stages by their stage
STEPS = {
    "outer": _beside(TableColumn("static tokens", "static_tokens", short="static", page=_PLAIN)),
    "inner": _beside(
        TableColumn("other choices than in float64", "other_choices.ours", short="other", page=_PLAIN),
        TableColumn("the release's", "other_choices.plain", short="theirs", page=_PLAIN),
        TableColumn("largest error", "largest_error.ours", ".1e", short="error"),
        TableColumn("the release's", "largest_error.plain", ".1e", short="theirs"),
    ),
}


def steps_in_short(rows: Sequence[Row]) -> str:
    """Least and largest ratios in bfloat16, on real clips where there are clips; none of other rows."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        if row["dtype"] == "bfloat16" and row.get("real", True):
            frames = f", {row['frames']} frames of real clips" if "frames" in row else ""
            groups.setdefault(f"{row['stage']} stage{frames}", []).append(row)
    return "; ".join(f"{name}: {_ratios(some)}" for name, some in groups.items())


def _ratios(rows: Sequence[Row]) -> str:
    found = [[row["cpu_ratio"] for row in rows], [row["kept"]["cpu_ratio"] for row in rows if row["kept"]]]
    first, kept = (f"{min(ratios):.1f} to {max(ratios):.1f}" if ratios else "" for ratios in found)
    return f"{first} ({kept})" if kept else first


def outer_rows(result: Row) -> list[Row]:
    """Rows of :data:`OUTER` of a result of ``eval.efficiency.outer``."""
    growth = result.get("growth")
    longer = {} if growth is None else {"longer": f"this project, {growth['frames'][1]} frames"}
    return [{"name": (OUTER_NAMES | longer)[name], **times} for name, times in result["times"].items()]


# rows of the paper, as eval.paper.rows.as_record gives them
FORMULA = (
    TableColumn("model", page=(OnPage("Model"),)),
    TableColumn("method", page=(OnPage("Method"),)),
    TableColumn("kept %", "retained_percent"),
    TableColumn("tokens", "tokens", lambda ends: " > ".join(map(str, ends))),
    TableColumn("paper T", "paper_tflops", ".1f", page=(OnPage("paper", _TFLOPS),)),
    TableColumn("ours T", "tflops", ".3f", page=(OnPage("ours", _TFLOPS),)),
    TableColumn("difference", form="+.3f", page=(OnPage("diff.", _TFLOPS),)),
    TableColumn("paper %", "paper_percent"),
    TableColumn("ours %", "percent"),
)
# FLOPs of a prefill, for rows of flops_rows
FLOPS = (
    TableColumn("config"),
    TableColumn(
        "tokens, newlines included", lambda row: f"{row['tokens']['before_llm']} > {_inside(row)}", short="tokens"
    ),
    TableColumn("tower T", "prefill.tower", per(1e12, ".2f")),
    TableColumn("projector T", "prefill.projector", per(1e12, ".2f")),
    TableColumn("method T", "prefill.method", per(1e12, ".3f"), detail=True),
    TableColumn("LLM T", "prefill.llm", per(1e12, ".2f")),
    TableColumn("LLM, of vanilla", lambda row: row["prefill"]["llm"] / row["full"]["llm"], ".1%"),
    TableColumn("total T", "prefill.total", per(1e12, ".2f"), detail=True),
    TableColumn("prefill, of vanilla", lambda row: row["prefill"]["total"] / row["full"]["total"], ".1%"),
    TableColumn("a later token G", "decode_per_token", per(1e9, ".2f")),
    TableColumn("KV cache MB", "kv_cache_bytes", per(1e6, ".1f")),
    TableColumn("peak MB", "peak_activation_bytes", per(1e6, ".0f"), detail=True),
)


def _inside(row: Row) -> int:
    return row["tokens"].get("after_inner", row["tokens"].get("inside_llm"))  # type: ignore[no-any-return]


def flops_rows(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Rows of :data:`FLOPS` of one checkpoint, each with its prefill without compression beside it."""
    full = next(row for row in rows if row["config"] == "vanilla")["prefill"]
    return [{**row, "full": full} for row in rows]


OWN_STAGES = ("signals", "outer", "inner")  # what a method itself does


def _tokens(row: Row) -> str:
    tokens = row["tokens"]
    budget = "" if tokens["budget"] is None else f" of {tokens['budget']}"
    return f"{tokens['before_llm']} > {tokens['inside_llm']}{budget}"


def _own(row: Row) -> str | None:
    found = [row["stages_ms"][stage] for stage in OWN_STAGES]
    return " + ".join(map(_own_time, found)) if any(found) else None


def _own_time(value: Mapping[str, float] | None) -> str:
    return ABSENT if value is None else milliseconds(value)


def _own_share(row: Row) -> float | None:
    return None if _own(row) is None else (row["against_vanilla"] or {}).get("overhead")


LATENCY = (
    TableColumn("config"),
    TableColumn("tokens before > inside the LLM, of the budget", _tokens, short="tokens"),
    TableColumn("tower", "stages_ms.tower", milliseconds),
    TableColumn("projector", "stages_ms.projector", milliseconds, detail=True),
    TableColumn("LLM prefill", "stages_ms.prefill", milliseconds),
    TableColumn("method: tower + outer + inner", _own, short="tower + outer + inner"),
    TableColumn("its share of vanilla", _own_share, ".1%", short="share"),
    TableColumn("first token", "stages_ms.time_to_first_token", lambda value: f"{milliseconds(value)} {span(value)}"),
    TableColumn("faster", "against_vanilla.time_to_first_token", factor),
    TableColumn("a later token", "stages_ms.time_per_output_token", milliseconds),
    TableColumn("faster", "against_vanilla.time_per_output_token", factor),
    TableColumn("peak MB", "peak_memory_mb", ".0f"),
)


# stages of a prompt in their order; the projector and the inner stage are part of what stands around them
STAGES = ("video", "preprocess", "tower", "projector", "outer", "prefill")
_TIMES = (*STAGES, "inner", "time_to_first_token", "time_per_output_token")
_RATIOS = ("time_to_first_token", "tokens_per_second", "peak_memory")
# the same rows stage by stage, on the page alone
STAGE_TIMES = (
    TableColumn("config", page=(OnPage("configuration", code=True),)),
    TableColumn("to the LLM", "tokens.before_llm", page=(OnPage(group=_COUNTS, optional=True),)),
    *(
        TableColumn(name.replace("_", " "), f"stages_ms.{name}", page=(OnPage(group=_SPREADS, optional=True),))
        for name in _TIMES
    ),
    TableColumn("tokens/s", "tokens_per_second", page=_ANY),
    TableColumn("peak memory, MB", "peak_memory_mb", ".0f", page=_ANY),
    *(
        TableColumn(
            name.replace("_", " "),
            f"against_vanilla.{name}",
            ".2f",
            page=(OnPage(group="times better than all tokens", optional=True),),
        )
        for name in _RATIOS
    ),
)


def by_clip(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows of a latency result by the clip they were measured on."""
    return {clip: [row for row in rows if row["clip"] == clip] for clip in dict.fromkeys(row["clip"] for row in rows)}


DECODE = (
    TableColumn("prompt"),
    TableColumn("way"),
    TableColumn(
        "ms a token", lambda row: "not measured" if row["found"] is None else milliseconds(row["found"]["ms_per_token"])
    ),
    TableColumn("tokens/s", "found.tokens_per_second", ".1f"),
    TableColumn("over eager", "over_eager", factor),
    TableColumn("over vanilla in the same way", "over_vanilla", factor, short="over vanilla"),
    TableColumn("first answer ms", "found.first_answer_ms", ".0f"),
    TableColumn("copied MB", "found.copied_bytes", per(1e6, ".2f")),
    TableColumn("operators", "found.operators"),
)


def decode_rows(rows: Sequence[Row]) -> Iterator[dict[str, Any]]:
    """Rows of :data:`DECODE`: one for every configuration and way."""
    for row in rows:
        step, tokens = row["bytes_per_step"], row["tokens"]
        prompt = f"{row['config']}, {tokens['prompt']} > {tokens['last_layer']} tokens, cache {step['kv_share']:.1%}"
        for way, found in row["decode"].items():
            ratios = {f"over_{name}": found and row[f"against_{name}"][way] for name in ("eager", "vanilla")}
            yield {"prompt": prompt, "way": way, "found": found, **ratios}

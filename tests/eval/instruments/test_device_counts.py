"""What is counted, what the stages may cost at most, and the benchmarks that report it."""

import json

import pytest
import torch

from eval.efficiency import kernels as bench_kernels
from eval.efficiency import outer as bench_outer
from eval.efficiency.outer import synthetic_video
from eval.instruments.device_counts import Counts, count
from holitom.methods.holitom import HolitomConfig
from holitom.methods.holitom.batch_merging import merge_batch
from holitom.methods.holitom.config import InnerConfig, OuterConfig
from holitom.methods.holitom.outer import OuterCompression
from holitom.ops import kernels, nearest
from holitom.ops.attention_scores import last_query_attention
from llava.errors import InputError
from tests.tiny_models import prompt, video

NUMBERS = torch.arange(6.0)

WAITS = {
    "item": (lambda: NUMBERS.sum().item(), 1),
    "branch": (lambda: bool((NUMBERS > 2).any()), 1),
    "list": (lambda: (NUMBERS + 1).tolist(), 1),
    "two lists": (lambda: ((NUMBERS + 1).tolist(), (NUMBERS + 2).tolist()), 2),
    "numpy": (lambda: (NUMBERS + 1).numpy(), 1),
    "nonzero": (lambda: (NUMBERS > 2).nonzero(), 1),
    "mask": (lambda: NUMBERS[NUMBERS > 2], 1),
    "unique": (lambda: NUMBERS.unique(), 1),
    "fetched once, read often": (
        lambda: (lambda host: (host.tolist(), host[2:].numpy(), int(host[0])))(NUMBERS.to("cpu")),
        1,
    ),
    "fetched": (lambda: NUMBERS.cpu().tolist(), 1),
    "upload": (lambda: torch.tensor([1, 2]).to(torch.device("cpu")), 0),
    "work": (lambda: (NUMBERS * 2).sort().values[:3], 0),
}


@pytest.mark.parametrize("name", WAITS)
def test_syncs(name: str) -> None:
    work, syncs = WAITS[name]
    assert count(work).syncs == syncs


def test_operators_are_those_that_work() -> None:
    assert count(lambda: NUMBERS.view(2, 3).mT[0].expand(4, 2).add(1).mul_(2)) == Counts(2, None, 0)
    assert count(lambda: torch.empty(4)).operators == 0


@pytest.mark.parametrize("fields", [{}, {"contextual_ratio": 0.5}, {"static_rule": "attention"}])
@pytest.mark.parametrize("frames", [1, 9, 40])
def test_outer_stage(frames: int, fields: dict) -> None:
    features, received = synthetic_video(frames, 30, 16, torch.float32, 0.45)
    stage = OuterCompression(OuterConfig(**fields))
    counts = count(lambda: stage(features, received))
    assert counts.syncs == 1
    assert counts.operators <= (340 if fields.get("contextual_ratio") else 230)


def test_a_compressed_answer_waits_once_more_than_any(model) -> None:
    """Padding is looked for once, by the method instead of the library; the outer stage has its own wait."""
    ids, clip = prompt(5, "video", 9), {"images": [video(5, cuts=(2,))], "modalities": ["video"]}

    def answer() -> None:
        model.generate(ids, max_new_tokens=1, do_sample=False, eos_token_id=None, pad_token_id=256, **clip)

    vanilla = count(answer).syncs
    with HolitomConfig(OuterConfig(), InnerConfig(merge_layer=2)).build().applied(model):
        compressed = count(answer).syncs
    spans = 1  # read from a tensor that is on the host already
    assert compressed == vanilla + 1 + spans


def test_operators_do_not_grow_with_the_video() -> None:
    counts = []
    for frames in (16, 64):
        features, received = synthetic_video(frames, 30, 16, torch.float32, 0.45)
        counts.append(count(lambda f=features, r=received: OuterCompression(OuterConfig())(f, r)).operators)
    assert counts[1] <= counts[0] + 20  # a few for each of six more segments, none per frame


def test_inner_stage() -> None:
    generator = torch.Generator().manual_seed(0)
    hidden, query, key = (torch.randn(*shape, generator=generator) for shape in ((1, 80, 8), (1, 4, 8), (1, 2, 80, 8)))

    def stage() -> None:
        scores = last_query_attention(query, key, 0.3, None)
        merge_batch(hidden, scores, [((5, 70),)], [0], 0.5, "sequential")

    counts = count(stage)
    assert counts.syncs == 0
    assert counts.operators <= 45


def test_bench_outer(capsys) -> None:
    arguments = "--frames 9 --tokens 20 --dim 8 --repetitions 2 --threads 1 --growth 20"
    bench_outer.main(arguments.split())
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["syncs"] == 1
    assert result["launches"] is None
    assert 0 < result["operators"] <= 260
    medians = [result["times"][name]["cpu_ms"]["median"] for name in ("holitom", "longer")]
    assert result["growth"]["over_linear"] == pytest.approx(medians[1] / medians[0] * 9 / 20, abs=1e-3)


@pytest.mark.parametrize("wrong", ["--growth 9", "--device cuda", "--device tpu", "--repetitions 0"])
def test_bench_outer_refuses(wrong: str) -> None:
    if wrong == "--device cuda" and torch.cuda.is_available():
        wrong += " --frames 9"  # refused there for the plain loop
    with pytest.raises(InputError):
        bench_outer.parse_arguments(["--frames", "9", *wrong.split()])


def test_bench_kernels(capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest, "has_units", lambda device: False)  # the shortlist reads counts, on a CPU alone
    bench_kernels.main(["--quick", "--repetitions", "1", "--threads", "1"])
    printed = capsys.readouterr().out
    result = json.loads(printed.splitlines()[-1])
    assert result["too_far"] == []
    assert result["kernels_measured"] == torch.cuda.is_available()
    assert ("not measured" in printed) != result["kernels_measured"]
    names = {row["name"] for row in result["rows"]}
    assert len(result["rows"]) == 3 * len(names)
    for row in result["rows"]:
        assert row["syncs"] == (row["name"] == "outer_stage")
        assert row["ms"] > 0


def test_bench_kernels_sees_a_wrong_result() -> None:
    case = bench_kernels.cases(True, torch.float32, "cpu")["similarity"]
    worse = bench_kernels.KernelCase(lambda features: case.ours(features) + 1e-3, case.plain, case.inputs)
    broken = bench_kernels.KernelCase(lambda features: case.ours(features) * torch.nan, case.plain, case.inputs)
    assert bench_kernels.errors(case)["within"]
    assert not bench_kernels.errors(worse)["within"]
    assert not bench_kernels.errors(broken)["within"]


def test_without_kernels_comes_back() -> None:
    before = kernels.supported
    with pytest.raises(ZeroDivisionError):
        bench_kernels.without_kernels(lambda: 1 / 0)
    assert kernels.supported is before


def test_bench_kernels_refuses_an_unknown_name() -> None:
    with pytest.raises(InputError, match="inner_merge"):
        bench_kernels.parse_arguments(["--only", "nothing"])

"""The benchmark of all methods: every method is there, with the parts it has, on hollow models that hooks accept."""

import json

import pytest
import torch

from eval.efficiency.methods import main
from eval.instruments.models.hollow_models import HollowDecoder, HollowTower
from holitom import available_methods
from holitom.methods.fastv import FastvConfig

SMALL = ["--frames", "8", "--tokens", "16", "--dim", "128", "--repetitions", "1", "--threads", "1"]


def test_every_method_has_its_row(capsys) -> None:
    main(SMALL)
    lines = capsys.readouterr().out.splitlines()
    result = json.loads(lines[-1])
    rows = {row["method"]: row for row in result["rows"]}
    inside_the_tower = {name for name, config in available_methods().items() if config().build().tower is not None}
    assert set(result["left_out"]) == inside_the_tower
    assert set(rows) == set(available_methods()) - inside_the_tower
    assert [line.split()[0] for line in lines[1:-2]] == [row["method"] for row in result["rows"]]
    assert lines[-2].endswith(": earlytom")
    for name, row in rows.items():
        compressor = available_methods()[name]().build()
        assert (row["outer_ms"] is None) == (compressor.outer is None)
        assert (row["inner_ms"] is None) == (compressor.inner is None)
        assert (row["signals_ms"] is None) == (compressor.outer is None or not compressor.outer.signals)
        parts = [row[part] or 0 for part in ("signals_ms", "outer_ms", "inner_ms")]
        assert row["total_ms"] == pytest.approx(sum(parts))
        assert 0 < row["tokens_to_llm"] <= 8 * 16
    assert rows["uniform"]["ratio"] == 1
    assert rows["fastv"]["tokens_to_llm"] == 8 * 16
    assert rows["uniform"]["tokens_to_llm"] == 8 * 3


def test_the_hollow_models_leave_everything_to_the_hooks() -> None:
    states = torch.randn(2, 9, 1152)
    assert HollowTower()(states) is states
    decoder, states = HollowDecoder(128, 4), torch.randn(1, 30, 128)
    spans = torch.tensor([[[5, 25]]])
    assert decoder(inputs_embeds=states, video_spans=spans) is states
    with FastvConfig().build().inner.applied(decoder):
        assert decoder(inputs_embeds=states, video_spans=spans).shape == (1, 10 + 4, 128)
    assert decoder(inputs_embeds=states, video_spans=spans) is states


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--frames", "0"], "--frames = 0 is out of range"),
        (["--tokens", "15"], "--tokens 15 is no square"),
        (["--dim", "100"], "--dim 100 is no multiple"),
    ],
)
def test_wrong_arguments(arguments: list[str], message: str, capsys) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert message in capsys.readouterr().err


def test_too_short_a_video_is_one_line(capsys) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([*SMALL, "--frames", "2"])
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1

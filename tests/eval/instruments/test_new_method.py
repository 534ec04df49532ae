"""A method of one file: what eval needs to know of it comes from its registration, and nothing has to be edited."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from eval.demo.app_session import DemoRequest, Session, method_file, methods_shown, own_shares, settings_of
from eval.efficiency.token_counts import measure, nominal
from eval.instruments.answering import inner_stages
from eval.paper.config_names import config_stem, paper_methods
from eval.paper.formula import ONEVISION_7B
from eval.report.page.charts import method_label, style
from eval.report.tables.efficiency import inner_layer
from eval.synthetic.answers.table import main_runs, split_name
from holitom import methods
from holitom.compressor import Compressor
from holitom.methods import MethodFacts, all_facts, available_methods, facts_of, register, share_of, title_of
from holitom.methods.fastv import FastvConfig
from holitom.methods.uniform import UniformConfig, UniformOuter
from holitom.settings import load_config, method_defaults

TABLE = (
    "vanilla fastv pdrop dycoke visionzip prunevid fastvid holitom_without_inner holitom "
    "earlytom evs flashvid holitom_tower random uniform vidcom2"
)


@pytest.fixture
def plain(monkeypatch) -> Iterator[str]:
    """A method with a ``retain_ratio`` of which nothing is said."""
    yield from _registered(monkeypatch, "throwaway", None)


@pytest.fixture
def told(monkeypatch) -> Iterator[str]:
    yield from _registered(monkeypatch, "throwaway", MethodFacts("Throw-away", "FastV", ("#123456", "o", "dotted")))


def _registered(monkeypatch, name: str, facts: MethodFacts | None) -> Iterator[str]:
    monkeypatch.setattr(methods, "_METHODS", available_methods())  # all are imported before the copy is made

    @register(name, facts)
    @dataclass(frozen=True)
    class ThrowawayConfig:
        retain_ratio: float = 0.15

        def build(self) -> Compressor:
            return Compressor(UniformOuter(UniformConfig(self.retain_ratio)), None)

    yield name


def test_it_is_run_at_every_share_of_the_table(plain: str) -> None:
    runs = main_runs()
    found = {name: config.compressor.retain_ratio for name, config in runs.items() if config.method == plain}
    assert found == {f"{plain}_r{share}": share / 100 for share in (25, 20, 15, 10)}
    shares = [split_name(name)[1] for name in runs]
    assert shares == sorted(shares, reverse=True)


def test_one_without_a_share_is_run_once(monkeypatch) -> None:
    monkeypatch.setattr(methods, "_METHODS", {**available_methods(), "other": FastvConfig})
    runs = main_runs()
    assert [name for name, config in runs.items() if config.method == "other"] == ["other"]


def test_its_tokens_are_counted(plain: str, tmp_path: Path) -> None:
    file = tmp_path / "one.yaml"
    file.write_text(f"model:\n  pretrained: x/llava-onevision-qwen2-7b-ov\ncompressor:\n  method: {plain}\n")
    config = load_config(file)
    assert nominal(config, 32) is None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("eval.efficiency.token_counts.measured", lambda question, _: [960] * 28)
        question = type("Stub", (), {"visual_tokens": 6272})()
        assert measure(question, file, ONEVISION_7B, 32)["measured"] == "960"


def test_a_row_that_it_brings_is_the_papers(told: str) -> None:
    """FastV's row drops inside the LLM, this method does not, so it is another row's method that counts as FastV."""
    config = load_config("configs/llava_onevision_7b/fastv.yaml")
    assert nominal(config, 32) is not None
    assert nominal(type(config)(config.model, told, available_methods()[told](1.0)), 32) is None
    assert share_of(told, available_methods()[told](0.4)) == 0.4


def test_the_app_offers_it(plain: str) -> None:
    assert plain in methods_shown()
    assert own_shares() == ["dycoke", "pdrop"]
    assert method_file(plain) is None
    asked = DemoRequest("clip", "?", method=plain, retain_ratio=0.3)
    assert settings_of(asked, 196) == ["retain_ratio=0.3"]
    session = object.__new__(Session)
    session.checkpoint = "checkpoints/tiny"
    config = session.config(asked, 196)
    assert (config.method, config.compressor.retain_ratio) == (plain, 0.3)


def test_charts_name_and_colour_it(plain: str) -> None:
    assert (title_of(plain), method_label(plain)) == (plain, plain)
    colours = [style(plain, place) for place in range(3)]
    assert len(set(colours)) == 3
    assert not {style(name) for name in available_methods() if facts_of(name).style} & set(colours)


def test_its_own_words_and_colour_are_used(told: str) -> None:
    assert (title_of(told), style(told, 4)) == ("Throw-away", ("#123456", "o", "dotted"))


def test_styles_differ() -> None:
    names = [*all_facts(), "vanilla"]
    own = [style(name) for name in names if name == "vanilla" or facts_of(name).style]
    assert len(own) == len(set(own)) == 13


def test_the_table_is_in_the_papers_order() -> None:
    assert " ".join(dict.fromkeys(split_name(name)[0] for name in sorted(main_runs(), key=_place))) == TABLE
    assert paper_methods() == TABLE.split()[:9]
    assert [config_stem(name, 15) for name in ("HoliTom (w/o M)", "VisionZip")] == [
        "holitom_without_inner_r15",
        "visionzip_r15",
    ]


def _place(name: str) -> tuple[int, str]:
    method = split_name(name)[0]
    known = paper_methods()
    return (known.index(method) if method in known else len(known), method)


@pytest.mark.parametrize(
    ("method", "changes", "layers", "layer"),
    [
        ("holitom", (), 28, 18),
        ("holitom", (), 80, 51),
        ("holitom", ("inner=null",), 28, 0),
        ("holitom", ("inner.merge_layer=6",), 28, 6),
        ("fastv", (), 28, 2),
        ("pdrop", (), 28, None),
        ("flashvid", (), 28, 20),
        ("uniform", (), 28, 0),
        ("dycoke", ("decode.layer=3",), 28, 0),
    ],
)
def test_where_the_sequence_gets_shorter(method: str, changes: tuple[str, ...], layers: int, layer: int | None) -> None:
    config = method_defaults(method, changes)
    assert inner_layer(config.as_dict()["compressor"], layers) == layer
    assert bool(inner_stages(config.build())) == (layer != 0)
    assert inner_layer(None, layers) == 0

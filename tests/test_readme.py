"""What the README prints runs: its Python as it stands, on the embedded model; its commands name what there is."""

import ast
import importlib.util
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

from eval.claims.score_rule import RULE
from eval.efficiency.sheets import flops_rows, steps_in_short
from eval.instruments.kinds import read_record
from holitom import available_methods, methods
from holitom.shipped import CONFIGS, config_names
from tests.clips import write_clip

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
PYTHON = [text for language, text in BLOCKS if language == "python"]
COMMANDS = [line for language, text in BLOCKS if language == "bash" for line in text.splitlines() if line.strip()]
PLUG_IN = {"holitom_eval": "eval"}  # an installed name -> that of the clone


def test_there_are_snippets_and_commands() -> None:
    assert len(PYTHON) >= 3
    assert len(COMMANDS) > 10


def test_the_headline_says_what_the_results_say() -> None:
    """No number of the table of claims is typed from memory."""
    cpu = ROOT / "results" / "cpu"
    flops = read_record(cpu / "flops.json", "flops")["result"]
    rows = [row for row in flops["real"] if row["geometry"] == "llava-onevision-7b"]
    row = next(row for row in flops_rows(rows) if row["config"] == "holitom_r10")
    shares = [f"{row['prefill'][part] / row['full'][part]:.1%}".replace("%", " %") for part in ("llm", "total")]
    assert f"{shares[0]} of the LLM's and {shares[1]} of the whole prefill" in README
    asked = ("LLaVA-OneVision-7B", "HoliTom", 10)
    formula = next(row for row in flops["rows"] if (row["model"], row["method"], row["retained_percent"]) == asked)
    assert f"{formula['percent']:.1f} % by the paper's formula" in README
    latency = read_record(cpu / "latency_llava-onevision-0.5b.json", "latency")["result"]
    ratio = latency["rows"][1]["against_vanilla"]["time_to_first_token"]
    assert f"{ratio:.2f}x at the 0.5B geometry, {latency['frames']} frames" in README
    steps = steps_in_short(read_record(cpu / "stages.json", "stages")["result"]["cells"])
    assert steps
    assert steps in " ".join(README.split())


def test_the_rule_stands_in_one_sentence() -> None:
    assert RULE in " ".join(README.split())


def test_the_snippets_run_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """As a reader types them: one session, a video in the folder. An excerpt of a method has its file's imports."""
    write_clip(tmp_path / "talk.mp4")
    monkeypatch.chdir(tmp_path)
    known = available_methods()
    session: dict[str, Any] = {"__name__": "readme"}
    for number, snippet in enumerate(PYTHON):
        method = re.search(r'^@register\("(\w+)"', snippet, re.MULTILINE)
        names = vars(importlib.import_module(known[method[1]].__module__)) if method else {}
        others = {name: config for name, config in known.items() if not method or name != method[1]}
        monkeypatch.setattr(methods, "_METHODS", others)  # else an excerpt would be the second method of its name
        scope = {**names, "__name__": "readme"} if method else session
        exec(compile(snippet, f"README.md, snippet {number + 1}", "exec"), scope)
        if method:
            assert methods._METHODS[method[1]]().build().outer is not None
    printed = capsys.readouterr().out.splitlines()
    assert ast.literal_eval(printed[1])[0] > 0  # tokens after the outer stage
    assert 0 < float(printed[2]) < 0.2


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_names_what_there_is(line: str) -> None:
    assert subprocess.run(["bash", "-n"], input=line.removesuffix("\\"), text=True, check=False).returncode == 0
    words = shlex.split(line.removesuffix("\\"), comments=True)
    for before, word in zip(["", *words], words, strict=False):
        if word.startswith(("scripts/", "configs/", "tests/")):
            assert (ROOT / word).exists(), word
        if before == "-m":
            module = ".".join([PLUG_IN.get(part, part) for part in word.split(".")])
            assert importlib.util.find_spec(module), word
        if before == "--config" and not word.startswith("configs/"):
            assert word in config_names(), word


def test_shipped_names_in_the_text_exist() -> None:
    named = re.findall(
        rf"(?<![\w/.])((?:{'|'.join(path.name for path in CONFIGS.iterdir())})/\w+)(?!\.yaml|[/\w])", README
    )
    assert named
    assert not [
        name for name in named if name not in config_names() and not (ROOT / "configs" / f"{name}.yaml").is_file()
    ]

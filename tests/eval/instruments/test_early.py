"""Help and complaints about arguments come before any import that takes seconds."""

import ast
import json
import subprocess
import sys

import pytest

from eval import HOME
from eval.benchmarks.run import parser
from eval.instruments import early
from eval.instruments.commands import commands

LISTS = {
    "eval.benchmarks",
    "eval.efficiency",
    "eval.instruments",
    "eval.synthetic",
    "eval.synthetic.task",
}  # no options
# runs every command three times and prints its exit statuses; one process for all, as each start takes a moment
ALL = """
import contextlib, io, json, sys
from eval.instruments import early
from eval.instruments.commands import commands
found = {}
for name, _ in commands("eval"):
    found[name] = []
    for word in ("--help", "--no-such-option", "--repetitions=0"):
        sys.argv = ["-m", word]
        out, err = io.StringIO(), io.StringIO()
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                early.answer(name)
            found[name].append(None)
        except SystemExit as stop:
            found[name].append([stop.code, out.getvalue(), err.getvalue()[-300:]])
print(json.dumps(found))
heavy = {"torch", "transformers", "numpy", "lmms_eval", "holitom", "llava", "rich", "av"} & set(sys.modules)
assert not heavy, heavy
"""


def test_every_command_answers_without_its_imports() -> None:
    done = subprocess.run([sys.executable, "-c", ALL], capture_output=True, text=True, check=True, cwd=HOME)
    found = json.loads(done.stdout)
    assert found.keys() == {name for name, _ in commands("eval")}
    for name, answers in found.items():
        if name in LISTS:
            assert answers == [None, None, None]
            continue
        assert answers[0] is not None, (
            f"{name} --help waits for its imports: eval.instruments.early says what it may use"
        )
        assert answers[0][0] == 0
        assert answers[0][1].startswith("usage:")
        assert answers[1] is not None, name
        assert answers[1][0] == 2
        assert "--no-such-option" in answers[1][2] or "required" in answers[1][2], answers[1]
        if "--repetitions " in answers[0][1]:
            bound = "error: --repetitions = 0 is out of range: it must be at least 1; see --help\n"
            assert answers[2] == [2, "", bound], name
    assert sum(bool(answers[0]) and "--repetitions " in answers[0][1] for answers in found.values()) > 8


def test_started_as_users_start_it() -> None:
    """A wrong choice and a missing argument: one line, status 2, nothing imported; ``python -X importtime`` tells."""
    for words, what in ((["--harness", "1"], "invalid choice: '1'"), ([], "required: config, --tasks")):
        command = [sys.executable, "-X", "importtime", "-m", "eval.benchmarks.run", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=HOME)
        assert done.returncode == 2
        lines = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
        assert len(lines) == 1
        assert lines[0].startswith("error: ")
        assert what in lines[0]
        imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if "import time:" in line}
        assert "argparse" in imported
        assert not {"torch", "holitom", "llava", "eval.benchmarks.run"} & imported


def test_the_help_is_the_commands_own(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["-m", "--help"])
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit):
        early.answer("eval.benchmarks.run")
    shown = capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["python -m eval.benchmarks.run"])
    assert shown == parser().format_help()


def test_nothing_but_the_reading_of_arguments_is_run() -> None:
    """A function that builds a command line for another command is no reader, whatever it does before."""
    source = "def work(options):\n    burn()\n    parser().parse_args(['a'])\n"
    source += "def read(words):\n    parser().parse_args(words)\n    burn()\n"
    source += "def main(words=None):\n    options = read(words)\n    work(options)\n"
    assert early._reader(ast.parse(source)).name == "read"


def test_right_arguments_are_left_to_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["-m", "a.yaml", "--tasks", "videomme", "--limit", "3"])
    assert early.answer("eval.benchmarks.run") is None
    assert early.answer("eval.no.such.command") is None
    assert sys.argv[0] == "-m"


def test_what_is_not_known_ends_the_attempt() -> None:
    absent = early._Absent()
    assert absent.cuda.get_device_name(0) is absent
    for look in (bool, list, str, len, float, hash, lambda value: f"{value}", lambda value: value == 1):
        with pytest.raises(early._Unknown):
            look(absent)

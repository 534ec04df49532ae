"""Run a measuring command and keep its result with provenance.

    python -m eval.instruments.record results/cpu/parity.json -- python -m eval.claims.parity tests/goldens

The command's output is shown as it comes; its last line must be JSON. Nothing is written unless the command succeeds,
and the working tree must be committed, so that the result names a commit that gives it (``--allow-dirty`` marks it).
"""

from __future__ import annotations

import json
import math
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from eval.instruments.cli import Parser, provenance, user_errors
from eval.instruments.kinds import KINDS, VERSION, stamped
from holitom.files import make_folder, whole_file
from llava.errors import InputError


def run(command: list[str]) -> list[str]:
    """Run a command with its output shown; returns the lines of its standard output.

    Raises:
        InputError: if it cannot be started or fails.
    """
    command = [sys.executable, *command[1:]] if command[0] == "python" else command
    try:
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            lines = []
            for line in process.stdout:
                print(line, end="", flush=True)
                lines.append(line)
    except OSError as error:
        raise InputError(f"{command[0]!r} cannot be run: {error.strerror}") from None
    if process.returncode:
        raise InputError(f"{' '.join(command)!r} ended with status {process.returncode}: nothing was written")
    return lines


def check_target(path: Path) -> None:
    """Find out before a long measurement whether its result can be written.

    Raises:
        InputError: if not.
    """
    make_folder(path.parent)
    if path.is_dir():
        raise InputError(f"{path} cannot be written, it is a folder: name a file")


def write_whole(path: Path, text: str) -> None:
    """Write a file at once: a reader sees the old one or the new one, never a part."""
    with whole_file(path) as part:
        part.write_text(text, encoding="utf-8")


@user_errors
def main() -> None:
    """Command line."""
    parser = Parser(description=__doc__)
    parser.add_argument("path", type=Path, help="JSON file to write")
    parser.add_argument("--allow-dirty", action="store_true", help="also with changes that are not committed")
    words = sys.argv[1:]
    at = words.index("--") if "--" in words else len(words)  # argparse would take our options for the command's
    options, command = parser.parse_args(words[:at]), words[at + 1 :]
    if not command:
        raise InputError("no command was given: write it behind --")
    facts = provenance()
    check_target(options.path)
    if facts["commit"] == "unknown" and not options.allow_dirty:
        raise InputError(
            "this is no git clone, so the result would name no commit: measure in a clone, or --allow-dirty"
        )
    if facts["commit"].endswith("-dirty") and not options.allow_dirty:
        raise InputError(
            f"the working tree differs from its commit ({facts['commit']}): commit first, or --allow-dirty"
        )
    lines = run(command)
    try:
        result = json.loads(lines[-1])
    except (IndexError, json.JSONDecodeError):
        raise InputError(f"the last line of {' '.join(command)!r} is not JSON: nothing was written") from None
    when = datetime.now(UTC).strftime("%Y-%m-%dT%H:%MZ")
    stated = result if isinstance(result, dict) else {}
    kind = stated.pop("kind", "other")
    if kind not in KINDS or stated.pop("version", VERSION) != VERSION:
        raise InputError(f"{' '.join(command)!r} ends in another kind or version ({kind!r}): nothing was written")
    if (own := stated.get("commit", facts["commit"])) != facts["commit"]:
        print(f"the working tree changed meanwhile: recorded as commit {own}", file=sys.stderr)
        facts["commit"] = own
    record = stamped(kind, {"command": shlex.join(command), "date": when, **facts, "result": result})
    write_whole(options.path, json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()


def finite(value: Any) -> Any:
    """JSON values with null in place of numbers that JSON does not have."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(key): finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [finite(part) for part in value]
    return value

"""Pack the tiny model's answers beside its tables, so that the reviewer's page can show each of them.

    python -m eval.report.page.keep_answers results/tiny --answers outputs/tiny_answers --data outputs/synthvid

writes ``answers.json`` there: the questions, and for every run of the tables its answers and token counts. They are
held against the tables first: the share of right answers of every family must be the same. The last line is JSON.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path

from eval.instruments.cli import Parser, provenance, user_errors
from eval.instruments.kinds import stamped
from eval.instruments.record import check_target, write_whole
from eval.report.page.sources import read_sources
from eval.report.page.tiny_answers import kept_set
from llava.errors import InputError


@user_errors
def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = Parser(description=__doc__)
    parser.add_argument("results", type=Path, help="folder of the tiny model's tables")
    parser.add_argument("--answers", type=Path, default=Path("outputs/tiny_answers"), help="folder of the answers")
    parser.add_argument("--data", type=Path, default=Path("outputs/synthvid"), help="folder of the data set")
    options = parser.parse_args(arguments)
    for name in ("answers", "data"):
        if not getattr(options, name).is_dir():
            raise InputError(f"--{name} {getattr(options, name)} is no folder: see scripts/table_tiny.sh")
    sources = read_sources(options.results)
    tables = [record for record in sources.of("tiny") if record.result["table"] == "main"]
    if not tables:
        raise InputError(f"{options.results} holds no main table of the tiny model: run scripts/table_tiny.sh")
    target = options.results / "answers.json"
    check_target(target)
    sets = {Path(record.path).stem: kept_set(record, options.answers, options.data) for record in tables}
    facts = provenance()
    words = ["python", "-m", "eval.report.page.keep_answers", options.results, "--answers", options.answers]
    command = shlex.join(map(str, [*words, "--data", options.data]))
    result = {"sets": {stem: found.packed() for stem, found in sets.items()}}
    write_whole(
        target,
        json.dumps(stamped("answers", {"command": command, **facts, "result": result}), separators=(",", ":")) + "\n",
    )
    counts = {stem: {"questions": len(found.questions), "runs": len(found.runs)} for stem, found in sets.items()}
    print(json.dumps({"file": str(target), "sets": counts, **facts}))


if __name__ == "__main__":
    main()

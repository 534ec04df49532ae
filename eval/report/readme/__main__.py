"""Write results/README.md, the tables that the README links, from the results; nothing in them is typed by hand.

python -m eval.report.readme          # results/README.md from results/
python -m eval.report.readme --check  # exit status 1 if it says something else than the results
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from eval.instruments.cli import Parser, user_errors
from eval.instruments.record import write_whole
from eval.report.readme.efficiency import efficiency
from eval.report.readme.field import field
from eval.report.readme.measured import measured

HEADS = {
    "Beside HoliTom at the same share": field,
    "What was checked, and what it costs": measured,
    "Efficiency": efficiency,
}


def written(results: Path) -> str:
    """The page of tables.

    Raises:
        InputError: if a result file cannot be read.
    """
    parts = [f"## {title}\n\n{section(results)}\n" for title, section in HEADS.items()]
    return "# Measured results\n\nMade by `python -m eval.report.readme`; edit nothing here.\n\n" + "\n".join(parts)


@user_errors
def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = Parser(description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--readme", type=Path, help="file to write (default: README.md in the results)")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args(arguments)
    target = options.readme or options.results / "README.md"
    new = written(options.results)
    if options.check:
        same = target.is_file() and target.read_text(encoding="utf-8") == new
        print(f"{target} " + ("agrees with" if same else "differs from") + f" {options.results}")
        sys.exit(0 if same else 1)
    write_whole(target, new)


if __name__ == "__main__":
    main()

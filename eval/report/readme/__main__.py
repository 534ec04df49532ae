"""Write the measured sections of the README from the results in the repository; nothing in them is typed by hand.

python -m eval.report.readme          # README.md from results/
python -m eval.report.readme --check  # exit status 1 if the README says something else than the results
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from eval.instruments.cli import Parser, user_errors
from eval.instruments.record import write_whole
from eval.report.readme.efficiency import efficiency
from eval.report.readme.measured import measured
from llava.errors import InputError

# name of a section's two marker lines -> what stands between them
SECTIONS = {"measured": measured, "efficiency": efficiency}


def between(text: str, name: str, readme: Path) -> tuple[str, str, str]:
    """What stands before, in and behind a section, the marker lines left out.

    Raises:
        InputError: if a marker is absent.
    """
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    head, found_begin, rest = text.partition(begin)
    inside, found_end, tail = rest.partition(end)
    if not found_begin or not found_end:
        raise InputError(f"{readme} lacks the lines {begin} and {end}")
    return head + begin, inside, end + tail


def rewritten(text: str, results: Path, readme: Path) -> str:
    """The README with every section as the results have it.

    Raises:
        InputError: if a marker is absent, or a result file cannot be read.
    """
    for name, section in SECTIONS.items():
        head, _, tail = between(text, name, readme)
        text = f"{head}\n{section(results)}\n{tail}"
    return text


@user_errors
def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--readme", type=Path, default=Path("README.md"))
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args(arguments)
    try:
        text = options.readme.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{options.readme} cannot be read ({error.strerror}): name the README") from None
    new = rewritten(text, options.results, options.readme)
    if options.check:
        print(f"{options.readme} " + ("agrees with" if new == text else "differs from") + f" {options.results}")
        sys.exit(0 if new == text else 1)
    write_whole(options.readme, new)


if __name__ == "__main__":
    main()

"""One self-contained HTML page for a reviewer: claims, the paper's numbers beside ours, evidence, charts, samples.

    python -m eval.report results -o report/
    python -m eval.report results --claims outputs/claims/claims.json -o report/

writes ``report/index.html``. Reads recorded results (``eval.instruments.record``), benchmark runs
(``eval.benchmarks.run``), the checked claims (``eval.claims``) and packed answers (``eval.report.page.keep_answers``).
It opens without a network. What was not measured is called so, and files that cannot be read are named with the reason.
The same results give the same bytes. The last line is JSON.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from eval.instruments.cli import Count, Parser, provenance, user_errors
from eval.instruments.record import check_target, write_whole
from eval.paper.grids import paper_grids
from eval.report.page.ablations import ablation_section
from eval.report.page.blocks import Notice, Section
from eval.report.page.claims import claims_section, claims_tally
from eval.report.page.deviations import deviation_section
from eval.report.page.efficiency import efficiency_section
from eval.report.page.evidence import evidence_section, problem_section
from eval.report.page.findings import tally
from eval.report.page.first_screen import first_screen, surprises
from eval.report.page.paper import all_findings, paper_section
from eval.report.page.render import Head, render
from eval.report.page.runs import comparison_section, rehearsal_section
from eval.report.page.samples import run_sets, samples_section
from eval.report.page.sources import Sources, read_sources
from eval.report.page.summary import summary_section
from eval.report.page.tiny import tiny_section
from eval.report.page.tiny_answers import packed_sets
from eval.report.page.token_maps import map_section, token_maps
from llava.errors import InputError

PAGE = "index.html"
TITLE = "HoliTom on LLaVA-OneVision, reproduced: the reviewer's page"


def make_sections(sources: Sources, most_maps: int) -> tuple[list[Section], dict[str, int]]:
    """All sections in their order, one that fails replaced by the reason; and the verdicts on printed numbers."""
    grids = paper_grids()
    pictures, maps = token_maps(sources, most_maps)
    packed = packed_sets(sources)
    sets = [found for made in sources.tried("samples", run_sets, sources, maps) for found in made]
    sets += packed.values()
    findings = next(iter(sources.tried("paper", all_findings, sources, grids)), {})
    makers: dict[tuple[str, str], Callable[[], Section]] = {
        ("claims", "Claims and verdicts"): lambda: claims_section(sources),
        ("paper", "The paper's tables and figures"): lambda: paper_section(sources, grids),
        ("paired", "Paired tests on the benchmarks"): lambda: comparison_section(sources, grids),
        ("efficiency", "Efficiency"): lambda: efficiency_section(sources),
        ("ablations", "Ablations"): lambda: ablation_section(sources, grids),
        ("deviations", "Deviations from the release"): lambda: deviation_section(sources, sets),
        ("tiny", "Instrument: the learned tiny model"): lambda: tiny_section(sources, packed),
        ("rehearsals", "Rehearsals"): lambda: rehearsal_section(sources, grids),
        ("maps", "Token maps"): lambda: map_section(sources, pictures),
        ("samples", "Sample browser"): lambda: samples_section(sets),
        ("evidence", "What was measured, and with what"): lambda: evidence_section(sources),
    }
    made = []
    for (slug, title), make in makers.items():
        absent = Section(slug, title, [Notice("This section could not be made, see the last one.", "damaged")])
        made.append(next(iter(sources.tried(f"section {title}", make)), absent))
    problems = problem_section(sources)
    counts = tally(finding for found in findings.values() for finding in found)
    front = [first_screen(sources), surprises(sources)]
    return [*front, summary_section(sources, findings), *made, *([problems] if problems else [])], counts


def make_page(sources: Sources, most_maps: int = 6) -> tuple[str, dict[str, int]]:
    """The page, and how many printed numbers have which verdict."""
    sections, counts = make_sections(sources, most_maps)
    sentences = [
        "HoliTom (arXiv 2505.21334) shortens what a video language model reads. This page puts what the paper claims "
        "beside what this implementation measured; each number names its command, commit, device and sample count.",
        f"Made from {sources.folder.as_posix()}: {len(sources.records)} recorded results, {len(sources.runs)} "
        f"benchmark runs, {'no' if sources.claims is None else 'one'} file of checked claims; "
        f"{len(sources.problems)} damaged or partial.",
    ]
    return render(Head(TITLE, sentences), sections), counts


def require_packages() -> None:
    """Find out before the work whether what draws and fills the page is installed.

    Raises:
        InputError: a package is absent.
    """
    for name in ("jinja2", "PIL", "matplotlib"):
        if importlib.util.find_spec(name) is None:
            raise InputError(f"{name} is not installed: pip install 'holitom[report]'")


@user_errors
def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = Parser(description=__doc__)
    parser.add_argument("results", type=Path, help="folder of results, searched with all folders below it")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the page")
    parser.add_argument("--claims", type=Path, help="file of eval.claims (default: claims.json in the results)")
    parser.add_argument("--maps", action=Count, least=0, default=6, help="most token maps on the page")
    options = parser.parse_args(arguments)
    require_packages()
    target = options.output / PAGE
    check_target(target)
    sources = read_sources(options.results, options.claims)
    page, counts = make_page(sources, options.maps)
    write_whole(target, page)
    for problem in sources.problems:
        print(f"not shown: {problem.path}: {problem.reason}")
    said = {
        "page": str(target),
        "bytes": len(page.encode()),
        "records": len(sources.records),
        "runs": len(sources.runs),
        "claims": None if sources.claims is None else claims_tally(sources),
        "problems": len(sources.problems),
        "numbers": counts,
        **provenance(),
    }
    print(f"{target}: open it in a browser")
    print(json.dumps(said))


if __name__ == "__main__":
    main()

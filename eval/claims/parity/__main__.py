"""Does this project compute what the authors' release computes? Compares with recorded inputs and outputs.

    python -m eval.claims.parity tests/goldens
    python -m eval.claims.parity tests/goldens_newer

The folder may hold any subset of ``outer_*``, ``inner_*`` and ``dpc_*`` (pairs of .json and .safetensors), ``e2e/``
(a checkpoint with inputs and outputs of whole runs), and of FlashVID and EarlyTom ``flashvid_*``,
``flashvid_llm_prune_*``, ``earlytom_merge_*``, ``earlytom_select_*`` and ``earlytom_tower_*``. One line per case, then
one line of JSON; exit status 1 if a case fails, 2 if there is nothing to compare.
"""

import json
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from safetensors import SafetensorError

from eval.claims.parity.cases import check_dpc, check_inner, check_outer
from eval.claims.parity.end_to_end import EndToEnd
from eval.claims.parity.newer_cases import (
    check_earlytom_merge,
    check_earlytom_select,
    check_earlytom_tower,
    check_flashvid,
    check_flashvid_prune,
)
from eval.instruments.cli import Parser, user_errors
from eval.instruments.kinds import stamped
from eval.instruments.progress import progress
from llava.errors import InputError

LIMITS = {
    "outer": 1e-5,
    "inner": 1e-5,
    "dpc": 1e-5,
    "e2e": 1e-3,
    "flashvid": 1e-5,
    "flashvid_llm_prune": 1e-5,
    "earlytom_merge": 1e-5,
    "earlytom_select": 1e-5,
    "earlytom_tower": 1e-4,
}
# The kind of a case is the longest of these that its name begins with.
CHECKS: dict[str, Callable[[Path], tuple[float, list[str]]]] = {
    "outer": check_outer,
    "inner": check_inner,
    "dpc": check_dpc,
    "flashvid": check_flashvid,
    "flashvid_llm_prune": check_flashvid_prune,
    "earlytom_merge": check_earlytom_merge,
    "earlytom_select": check_earlytom_select,
    "earlytom_tower": check_earlytom_tower,
}


@dataclass(frozen=True)
class CaseResult:
    """Result of one case: largest absolute error, and what differs in selections (empty if nothing)."""

    name: str
    kind: str
    error: float
    differences: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Within the limit of its kind, with equal selections."""
        return self.error <= LIMITS[self.kind] and not self.differences

    def line(self) -> str:
        """One line for the terminal."""
        selections = "selections equal" if not self.differences else "; ".join(self.differences)
        verdict = "pass" if self.passed else "FAIL"
        return f"{verdict}  {self.name:<44} max abs error {self.error:.2e}  {selections}"


def _checks(folder: Path) -> Iterator[tuple[str, str, Callable[[], tuple[float, list[str]]]]]:
    """Name, kind and check of every case in the folder."""
    for kind, check in CHECKS.items():
        for path in sorted(folder.glob(f"{kind}_*.safetensors")):
            longest = max((other for other in CHECKS if path.stem.startswith(f"{other}_")), key=len)
            if longest == kind and not path.stem.endswith("_weights"):
                yield path.stem, kind, partial(check, path)
    runs = sorted((folder / "e2e").glob("out_*.safetensors"))
    if runs:
        whole = EndToEnd(folder / "e2e")
        for path in runs:
            yield f"e2e/{path.stem}", "e2e", partial(whole.check, path)


def compare(folder: Path) -> Iterator[CaseResult]:
    """Run every case of a folder, in order of kind and name.

    Raises:
        InputError: if the folder is absent or holds no case.
    """
    if not folder.is_dir():
        raise InputError(f"there is no folder {str(folder)!r}: pass one with recorded cases, such as tests/goldens")
    cases = list(_checks(folder))
    if not cases:
        raise InputError(f"{str(folder)!r} holds no {', '.join(f'{kind}_*' for kind in CHECKS)} or e2e/out_* case")
    for name, kind, check in progress(cases, "Cases"):
        try:
            error, differences = check()
        except (OSError, KeyError, ValueError, RuntimeError, SafetensorError) as problem:
            error, differences = float("inf"), [f"{type(problem).__name__}: {problem}"]
        yield CaseResult(name, kind, error, tuple(differences))


@user_errors
def main() -> None:
    """Command line."""
    parser = Parser(description=__doc__)
    parser.add_argument("folder", type=Path, help="folder with recorded cases")
    outcomes = []
    for outcome in compare(parser.parse_args().folder):
        print(outcome.line(), flush=True)
        outcomes.append(outcome)
    worst = {kind: max((o.error for o in outcomes if o.kind == kind), default=None) for kind in LIMITS}
    worst = {kind: error if error is None or math.isfinite(error) else None for kind, error in worst.items()}
    failed = [outcome.name for outcome in outcomes if not outcome.passed]
    result = {"cases": len(outcomes), "failed": failed, "max_abs_error": worst}
    print(json.dumps(stamped("parity", result)))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()

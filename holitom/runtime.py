"""What to do where ``llava`` is another package than ours, or absent; :mod:`holitom.errors` finds out."""

from pathlib import Path

from holitom import errors


def foreign_runtime() -> Path | None:
    """Folder of the package ``llava`` that Python finds, if it is another than ours; None also if there is none."""
    path = errors.runtime_found()
    return None if path is None or errors.runtime_is_ours() else path.parent


def runtime_problem() -> str | None:
    """Why our runtime cannot be imported, with the remedy, in one line; None if it can."""
    if errors.runtime_is_ours():
        return None
    other = foreign_runtime()
    if other is None:
        return "the package llava of holitom is not installed: install holitom again"
    ours = Path(__file__).resolve().parent.parent
    first = f"put {ours} first on PYTHONPATH, or " if (ours / "llava").is_dir() and ours != other.parent else ""
    return (
        f"the package llava at {other} is not the one that holitom brings but another one, as LLaVA-NeXT's is: "
        f"{first}give holitom an environment of its own; models of transformers' own classes need no llava"
    )


def require_runtime() -> None:
    """Before an import of ``llava``.

    Raises:
        InputError: if it is absent, or another package of that name is found instead.
    """
    problem = runtime_problem()
    if problem is not None:
        raise errors.InputError(problem)

"""Figures for files, drawn by matplotlib without a display."""

from typing import Any

from llava.errors import InputError


def new_figure(columns: int, width: float, height: float, title: str, fontsize: int) -> tuple[Any, Any]:
    """A figure of so many inches and its axes, side by side.

    Raises:
        InputError: without matplotlib.
    """
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError as error:
        raise InputError("figures need matplotlib: pip install 'holitom[report]'") from error
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.suptitle(title, fontsize=fontsize)
    return figure, figure.subplots(1, columns, squeeze=False)[0]

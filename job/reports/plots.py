"""Plots of the reports and figures, as PNG files; pyplot's global state is not used."""

import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import imsave

DPI = 110


def panels(
    count: int, columns: int = 3, size: tuple[float, float] = (4, 3)
) -> tuple[Figure, list[Axes]]:
    """Return a figure of equal panels with grids, row by row.

    Args:
        count: number of panels.
        columns: most panels per row.
        size: width and height of a panel, inches.
    """
    columns = min(columns, count)
    rows = math.ceil(count / columns)
    width, height = size
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).ravel())
    for unused in axes[count:]:
        unused.set_visible(False)
    for used in axes[:count]:
        used.grid(alpha=0.3)
    return figure, axes[:count]


def png(figure: Figure, dpi: int = DPI) -> bytes:
    """Return a figure as a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def image_png(image: np.ndarray) -> bytes:
    """Return an RGB image, uint8 [height, width, 3], as a PNG file."""
    buffer = io.BytesIO()
    imsave(buffer, np.ascontiguousarray(image), format="png")
    return buffer.getvalue()


def coordinates(values: Sequence[Any]) -> list[Any]:
    """Return values as an axis takes them: numbers as they are, all else as text."""
    return [value if _is_number(value) else str(value) for value in values]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)

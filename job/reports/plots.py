"""Plots of the reports and figures, as PNG or SVG; pyplot's global state is not used."""

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from data.html_page import Html

DPI = 110
GREY = "#808890"  # reads on white and on black
_OF_PAGE = "#0a0b0c"  # stands for the colour of the page's text
_QUIETEST = 2  # percentile of a mel spectrogram that is drawn darkest


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


def png(figure: Figure, dpi: int = DPI, transparent: bool = False) -> bytes:
    """Return a figure as a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, transparent=transparent)
    return buffer.getvalue()


def svg(figure: Figure, name: str) -> Html:
    """Return a figure as a drawing that a page holds, in the colour of its text.

    Args:
        figure: the figure.
        name: what it shows, for those who do not see it.
    """
    _colour(figure, _OF_PAGE)
    buffer = io.StringIO()
    # equal figures are equal drawings
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    drawn = buffer.getvalue().replace(_OF_PAGE, "currentColor")
    begin = Html('<svg role="img" aria-label="{}" ').format(name)
    return Html(f"{begin}{drawn[drawn.index('<svg') + len('<svg') :]}")


def _colour(figure: Figure, colour: str) -> None:
    """Give a figure's texts, frames and ticks a colour."""
    for axes in figure.axes:
        axes.tick_params(colors=colour)
        for spine in axes.spines.values():
            spine.set_edgecolor(colour)
        if (legend := axes.get_legend()) is not None:
            legend.set_frame_on(False)
    for words in figure.findobj(Text):
        words.set_color(colour)


def curves(
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    x: str,
    y: str,
    size: tuple[float, float] = (7, 2.6),
) -> Figure:
    """Return a figure of named lines, each of its points' places and heights."""
    figure, (panel,) = panels(1, size=size)
    for name, points in lines.items():
        panel.plot(*points, label=name, marker=".", linewidth=1.5)
    panel.set_xlabel(x)
    panel.set_ylabel(y)
    if len(lines) > 1:
        panel.legend(fontsize=8)
    return figure


def mel_pair(mels: Mapping[str, np.ndarray], seconds_per_frame: float) -> bytes:
    """Return mel spectrograms below each other, on one scale of colour and time: PNG.

    Args:
        mels: title -> [bands, frames]; the first one gives the scale of colour.
        seconds_per_frame: length of a frame.
    """
    first = next(iter(mels.values()))
    colours = {"vmin": np.percentile(first, _QUIETEST), "vmax": first.max(), "cmap": "magma"}
    longest = max(mel.shape[1] for mel in mels.values()) * seconds_per_frame
    figure, axes = panels(len(mels), columns=1, size=(8, 1.7))
    for panel, (title, mel) in zip(axes, mels.items(), strict=True):
        ends = (0, mel.shape[1] * seconds_per_frame, 0, len(mel))
        image = panel.imshow(mel, aspect="auto", origin="lower", extent=ends, **colours)
        panel.set_xlim(0, longest)
        panel.set_title(title, fontsize=9, loc="left")
        panel.set_ylabel("mel band")
        panel.grid(visible=False)
    axes[-1].set_xlabel("seconds")
    figure.colorbar(image, ax=axes)
    _colour(figure, GREY)
    return png(figure, transparent=True)


def alignment(values: np.ndarray, seconds_per_frame: float) -> bytes:
    """Return an alignment [frames, phones] with the phones on the vertical axis: PNG."""
    figure, (panel,) = panels(1, size=(4, 3.4))
    ends = (0, len(values) * seconds_per_frame, 0, values.shape[1])
    panel.imshow(values.T, aspect="auto", origin="lower", extent=ends, cmap="magma")
    panel.grid(visible=False)
    panel.set_xlabel("seconds")
    panel.set_ylabel("phone")
    _colour(figure, GREY)
    return png(figure, transparent=True)


def coordinates(values: Sequence[Any]) -> list[Any]:
    """Return values as an axis takes them: numbers as they are, all else as text."""
    return [value if _is_number(value) else str(value) for value in values]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)

"""Images for TensorBoard and reports."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def spectrogram_image(spectrogram: np.ndarray) -> np.ndarray:
    """Draw a mel spectrogram [bands, frames] as an RGB image, uint8 [height, width, 3]."""
    return _matrix(spectrogram, "frame", "mel band", size=(10, 3))


def alignment_image(alignment: np.ndarray) -> np.ndarray:
    """Draw an alignment [frames, phones] as an RGB image, uint8 [height, width, 3].

    Phones are on the vertical axis.
    """
    return _matrix(alignment.T, "frame", "phone", size=(6, 4))


def line_plot(
    xs: Sequence[float], lines: Mapping[str, Sequence[float]], x: str, y: str
) -> np.ndarray:
    """Draw named lines over common points as an RGB image, uint8 [height, width, 3]."""
    figure, axes = _figure((7, 3), x, y)
    for name, values in lines.items():
        axes.plot(xs, values, label=name, marker=".")
    axes.legend()
    return _pixels(figure)


def _matrix(values: np.ndarray, x: str, y: str, size: tuple[float, float]) -> np.ndarray:
    figure, axes = _figure(size, x, y)
    image = axes.imshow(values, aspect="auto", origin="lower", interpolation="none")
    figure.colorbar(image, ax=axes)
    return _pixels(figure)


def _figure(size: tuple[float, float], x: str, y: str) -> tuple[Figure, Axes]:
    # no pyplot: nothing global, nothing to close
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    return figure, axes


def _pixels(figure: Figure) -> np.ndarray:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]

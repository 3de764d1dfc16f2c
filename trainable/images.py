"""Images for TensorBoard: spectrograms and alignments."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

Inches = tuple[float, float]  # width, height; 100 pixels each


def spectrogram_image(spectrogram: np.ndarray, size: Inches = (10, 3)) -> np.ndarray:
    """Draw a mel spectrogram [bands, frames] as an RGB image, uint8 [height, width, 3].

    Raises:
        ValueError: it is no matrix, or empty.
    """
    return _matrix(_checked(spectrogram, "a spectrogram"), "frame", "mel band", size)


def alignment_image(alignment: np.ndarray, size: Inches = (6, 4)) -> np.ndarray:
    """Draw an alignment [frames, phones] as an RGB image, uint8 [height, width, 3].

    Phones are on the vertical axis.

    Raises:
        ValueError: it is no matrix, or empty.
    """
    return _matrix(_checked(alignment, "an alignment").T, "frame", "phone", size)


def _checked(values: np.ndarray, what: str) -> np.ndarray:
    """Return values as a matrix.

    Raises:
        ValueError: they are none.
    """
    values = np.asarray(values)
    if values.ndim != 2 or not values.size:
        shape = list(values.shape)
        raise ValueError(f"{what} must be a matrix of numbers to be drawn, but has shape {shape}")
    return values


def _matrix(values: np.ndarray, x: str, y: str, size: Inches) -> np.ndarray:
    figure, axes = _figure(size, x, y)
    image = axes.imshow(values, aspect="auto", origin="lower", interpolation="none")
    figure.colorbar(image, ax=axes)
    return _pixels(figure)


def _figure(size: Inches, x: str, y: str) -> tuple[Figure, Axes]:
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

"""Images for TensorBoard and reports."""

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def spectrogram_image(spectrogram: np.ndarray) -> np.ndarray:
    """A mel spectrogram [bands, frames] as an RGB image, uint8 [height, width, 3]."""
    return _image(spectrogram, "frame", "mel band", size=(10, 3))


def alignment_image(alignment: np.ndarray) -> np.ndarray:
    """An alignment [frames, phones] as an RGB image, uint8 [height, width, 3]; phones on the vertical axis."""
    return _image(alignment.T, "frame", "phone", size=(6, 4))


def _image(values: np.ndarray, x: str, y: str, size: tuple[float, float]) -> np.ndarray:
    figure = Figure(figsize=size, layout="constrained")  # no pyplot: nothing global, nothing to close
    axes = figure.add_subplot()
    drawn = axes.imshow(values, aspect="auto", origin="lower", interpolation="none")
    figure.colorbar(drawn, ax=axes)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]

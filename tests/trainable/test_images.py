"""Images: of the sizes that are asked for, and of matrices alone."""

import numpy as np
import pytest

from trainable.images import alignment_image, spectrogram_image

DRAWN = {"a spectrogram": spectrogram_image, "an alignment": alignment_image}


@pytest.mark.medium
def test_an_image_has_the_size_that_is_asked_for():
    matrix = np.random.default_rng(0).random((8, 20))
    assert spectrogram_image(matrix).shape == (300, 1000, 3)
    assert alignment_image(matrix).shape == (400, 600, 3)
    for draw in DRAWN.values():
        image = draw(matrix, size=(3, 2))
        assert (image.shape, image.dtype) == ((200, 300, 3), np.uint8)
    # numbers that are none are left blank
    matrix[2, 3] = np.nan
    assert spectrogram_image(matrix, size=(2, 1)).std() > 0


@pytest.mark.parametrize("shape", [(), (7,), (2, 3, 4), (0, 5), (5, 0)])
@pytest.mark.parametrize("what", DRAWN)
def test_what_is_no_matrix_is_refused_by_its_shape(what, shape):
    with pytest.raises(ValueError, match=f"{what} must be a matrix .* has shape") as told:
        DRAWN[what](np.zeros(shape))
    assert str(told.value).endswith(f"has shape {list(shape)}")

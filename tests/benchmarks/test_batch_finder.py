"""The proposal of the batch finder fits the memory for every length, and no more than that."""

import pytest

from benchmarks.batch_finder import propose


def test_the_proposal_fits():
    fixed, frame, utterance, square = 3.0, 1e-3, 0.2, 1e-7

    def gib(n: int, frames: int) -> float:
        return fixed + n * (utterance + frame * frames + square * frames**2)

    lengths = (100, 430, 1720)
    found = propose({frames: (gib(1, frames), gib(2, frames)) for frames in lengths}, 20.0)
    for frames in lengths:
        count = min(found["max_utterances"], found["max_frames"] // frames)
        assert count >= 1
        assert gib(count, frames) <= 20.0
    assert gib(found["max_utterances"] + 1, 100) > 20.0
    assert any(gib(found["max_frames"] // frames + 1, frames) > 20.0 for frames in (430, 1720))


def test_too_little_memory_is_refused():
    with pytest.raises(ValueError, match="one utterance of 430 frames takes 5"):
        propose({430: (5.0, 6.0)}, 4.0)

"""The proposal of the batch finder fits the memory for every length, and no more than that."""

import json

import numpy as np
import pytest

from benchmarks.batch_finder import Peaks, grown, main, propose
from data.plan.costs import utterance_costs
from data.settings.plan import CostConfig


def test_the_proposal_fits():
    fixed, frame, utterance, square = 3.0, 1e-3, 0.2, 1e-7

    def gib(n: int, frames: int) -> float:
        return fixed + n * (utterance + frame * frames + square * frames**2)

    lengths = (100, 430, 1720)
    peaks = {frames: grown(lambda n, frames=frames: gib(n, frames), 20.0) for frames in lengths}
    found = propose(peaks, 20.0)
    for frames in lengths:
        count = min(found["max_utterances"], found["max_frames"] // frames)
        assert count >= 1
        assert gib(count, frames) <= 20.0
    assert gib(found["max_utterances"] + 1, 100) > 20.0
    assert any(gib(found["max_frames"] // frames + 1, frames) > 20.0 for frames in (430, 1720))


def test_the_peak_of_few_utterances_says_nothing_of_many():
    """As on a GPU, where the optimizers take more than a step of some utterances."""

    def gib(n: int) -> float:
        return max(8.0 + 1e-3 * n, 3.0 + 0.25 * n)

    found = grown(gib, 63.0)
    assert found == (32, 11.0, 19.0)
    assert propose({400: found}, 63.0)["max_utterances"] == 240


def test_too_little_memory_is_refused():
    with pytest.raises(ValueError, match="one utterance of 430 frames takes 5"):
        propose({430: Peaks(1, 5.0, 6.5)}, 4.0)


@pytest.mark.slow  # half a minute
def test_the_default_costs_are_about_what_is_counted(tmp_path):
    """To within 5 % of the mean, from one second to twelve."""
    assert main(["--count", "--json", str(tmp_path / "out.json")]) == 0
    counted = json.loads((tmp_path / "out.json").read_text())["data"]["plan"]["cost"]
    frames = np.array([86, 430, 1033])
    ratio = utterance_costs(CostConfig(), frames) / utterance_costs(CostConfig(**counted), frames)
    assert np.all(abs(ratio - 1) < 0.05)


def test_too_few_lengths_to_count_are_refused():
    with pytest.raises(ValueError, match="--lengths is 100 430: give three"):
        main(["--count", "--lengths", "100", "430"])

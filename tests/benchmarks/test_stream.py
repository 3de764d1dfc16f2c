"""What benchmarks.stream makes of its samples."""

import numpy as np
import pytest

from benchmarks.stream import STEP_S, per_micro_batch, waiting_share


def test_more_groups_wait_for_the_last_of_them():
    waits = np.zeros(640)
    assert waiting_share(waits, 64) == 0
    waits[0] = 0.1  # all groups begin alike
    assert waiting_share(waits, 1) == pytest.approx(0.1 / (0.1 + 640 * STEP_S))
    assert waiting_share(waits, 8) == pytest.approx(0.1 / (0.1 + 80 * STEP_S))
    waits[1:] = np.random.default_rng(0).exponential(0.01, 639)
    shares = [waiting_share(waits, groups) for groups in (1, 8, 64)]
    assert shares == sorted(shares)
    assert shares[0] == pytest.approx(waits.sum() / (waits.sum() + 640 * STEP_S))


def test_processes_that_start_and_end_do_not_count():
    spent = [0.0, 0.8, 1.6, 9.0, 0.2, 1.0, 1.8, 2.6]
    samples = [(100 * i, {"coordination": seconds}) for i, seconds in enumerate(spent)]
    assert per_micro_batch(samples) == {"coordination": pytest.approx(1.0)}
    assert per_micro_batch([*samples, samples[-1]]) == {"coordination": pytest.approx(1.0)}

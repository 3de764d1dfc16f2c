"""The share of the device's best is counted once, and costs nothing where it is not wanted."""

import time

import pytest
import torch

from benchmarks.parts import FlopCount
from tests.tiny import tiny_batch, tiny_config, tiny_state
from trainable import flops
from trainable.flops import Utilisation
from trainable.learning.step import TrainingStep

CPU = torch.device("cpu")


@pytest.mark.medium
def test_a_steps_operations_are_counted_once_and_grow_with_its_frames(monkeypatch):
    monkeypatch.setattr(flops, "attainable", lambda device, precision: 1e12)
    cfg = tiny_config(micro_batches_per_step=1, measure_mfu=True)
    step = TrainingStep(tiny_state(cfg), cfg.train, cfg.data)
    batch = tiny_batch(cfg, 0)
    utilisation = Utilisation(cfg.train, CPU)
    assert utilisation.of(batch.computed_frames, 1.0) == {}
    with utilisation.counting(batch.computed_frames):
        step([(0, batch)])
    with FlopCount() as count:
        step([(0, batch)])
    expected = count.corrected.get_total_flops() / 1e12
    assert expected > 1e-4
    assert utilisation.of(batch.computed_frames, 2.0) == {"mfu": pytest.approx(expected / 2)}
    assert utilisation.of(3 * batch.computed_frames, 1.0) == {"mfu": pytest.approx(3 * expected)}
    counted = utilisation.per_frame
    with utilisation.counting(1):
        torch.ones(2, 2) @ torch.ones(2, 2)
    assert utilisation.per_frame == counted
    with utilisation.counting(1, changed=True):
        torch.ones(2, 2) @ torch.ones(2, 2)
    assert utilisation.per_frame == 16.0


def test_it_is_off_unless_it_is_asked_for(monkeypatch):
    monkeypatch.delattr(flops, "FlopCounterMode")
    begin = time.perf_counter()
    utilisation = Utilisation(tiny_config().train, CPU)
    with utilisation.counting(80):
        pass
    assert utilisation.of(80, 1.0) == {}
    assert time.perf_counter() - begin < 1

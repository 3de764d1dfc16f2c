"""Plans of convolutions over the epoch plan: the default padding leaves few that are new."""

from collections import Counter

import pytest
import torch
from torch import nn

from benchmarks import plans
from benchmarks.plans import Convolutions, groups, measure, walk
from data.settings.plan import PadTo
from trainable.model_config import ModelConfig


@pytest.mark.medium
def test_few_plans_are_new_after_a_thousand_steps_of_the_base_presets_plan():
    result = measure(ModelConfig(), paddings=((1, 1),))
    default = PadTo()
    assert result["default"] == f"{default.frames}/{default.tokens}"
    padded, unpadded = (result["pad_to"][name] for name in (result["default"], "1/1"))
    later = ("1000-5000", "5000-9000")
    assert all(padded["new_plans_per_step"][window] <= 2 for window in later)
    assert all(unpadded["new_plans_per_step"][window] > 30 for window in later)
    assert 0.01 < padded["cost"] < 0.02
    assert unpadded["cost"] == 0
    assert padded["distinct_shapes"] < unpadded["distinct_shapes"] / 10


def test_a_plan_that_was_not_used_for_long_is_made_again(monkeypatch):
    shapes = [((1, 10, 5), 10), ((2, 10, 5), 20), ((1, 10, 5), 10), ((1, 10, 7), 10)]
    monkeypatch.setattr(plans, "WINDOWS", ((0, 4),))
    monkeypatch.setattr(plans, "epoch_shapes", lambda *_: iter(shapes))
    counts = Counter({(True, False, False): 3, (False, False, True): 1})
    found = []
    for kept in (100, 4):
        monkeypatch.setattr(plans, "KEPT", kept)
        found.append(walk(counts, PadTo())["new_plans"])
    # B 1 and 2, T_x 5 and 7; with room for four plans, B 1 is gone when it comes again
    assert found == [3 + 3 + 1 + 1, 4 + 3 + 3 + 1]


def test_the_two_gradients_of_a_convolution_are_plans_of_their_own():
    x = torch.rand(2, 3, 9, requires_grad=True)
    with Convolutions() as seen:
        nn.Conv1d(3, 4, 3)(x).sum().backward()
    assert [kind[0] for kind, _ in seen.calls] == ["forward", "input", "weight"]
    assert {size for _, size in seen.calls} == {(2, 3, 9)}
    made = [plans.Convolution(*call, depends_on=(True, True, False)) for call in seen.calls]
    assert groups(made) == {(True, True, False): 3}
    assert plans.grown_by([2, 0, 16]) == (True, True, False)
    assert plans.grown_by([4, 0, 512]) == (True, False, True)

import pytest
import torch
from torch import nn

from tests.tiny import tiny_batch, tiny_config, tiny_state
from trainable.learning.ema import AveragedWeights
from trainable.learning.step import TrainingStep


def test_average_by_hand():
    net = nn.Linear(1, 1, bias=False)
    net.weight.data.fill_(1.0)
    averaged = AveragedWeights(net, 0.5)
    wanted = 1.0
    for step, weight in enumerate([2.0, 5.0, -1.0], 1):
        net.weight.data.fill_(weight)
        averaged.update(step)
        d = min(0.5, (1 + step) / (10 + step))
        wanted = d * wanted + (1 - d) * weight
    assert torch.allclose(averaged.state_dict()["weight"], torch.tensor([[wanted]]))
    with averaged.in_place():
        assert torch.allclose(net.weight, torch.tensor([[wanted]]))
    assert net.weight.item() == -1.0


@pytest.mark.medium
def test_training_is_the_same_with_an_average_beside_it():
    digests = []
    for decay in (0.0, 0.9):
        cfg = tiny_config(ema_decay=decay)
        state = tiny_state(cfg)
        step = TrainingStep(state, cfg.train, cfg.data)
        step([(0, tiny_batch(cfg, 1))])
        digests.append(state.digest())
    assert digests[0] == digests[1]
    raw, averaged = state.nets["g"].state_dict(), state.averaged.state_dict()
    assert raw.keys() == averaged.keys()
    assert any(not torch.equal(raw[name], averaged[name]) for name in raw)

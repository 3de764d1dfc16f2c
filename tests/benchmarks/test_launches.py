"""Kernels of a training step: how they are counted, and what each part may launch."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.as_reference import AsReferenceStep
from benchmarks.fake_gpu import fake_gpu, walk_backward
from benchmarks.launches import Launches, count_step
from benchmarks.step import synthetic_batch
from data.config import DataConfig
from trainable.config import TrainConfig
from trainable.model_config import ModelConfig

# at most so many kernels of a part, the published structure, fp32
BUDGET = {
    "alignment": 25,
    "G forward: sdp": 340,
    "G backward: sdp": 700,
    "G forward: flow": 500,
    "G backward: flow": 660,
    "G forward: dec": 235,
    "G backward: dec": 440,
    "G forward: enc_p": 190,
    "G backward: enc_p": 245,
    "G forward: enc_q": 145,
    "G backward: enc_q": 195,
    "WavLM forward": 580,
    "G backward: WavLM": 460,
    "D forward": 335,
    "D, DUR, WD backward: D": 180,
    "G backward: D": 155,
    "generator's losses": 85,
    "G backward: generator's losses": 90,
    "optimizers": 95,
    "report": 20,
}
OTHERS = 400  # all other parts together
ALL = 6_000
BF16 = 7_000


def of_step(precision: str) -> Launches:
    batch = synthetic_batch(2, 400, 120, ModelConfig(), DataConfig())
    return count_step(TrainConfig(precision=precision), batch)


@pytest.mark.medium
def test_parts_keep_their_budgets():
    count = of_step("fp32")
    over = {part: count.by_part[part] for part, n in BUDGET.items() if count.by_part[part] > n}
    assert not over, f"kernels of parts above their budgets: {over}"
    others = sum(n for part, n in count.by_part.items() if part not in BUDGET)
    assert others <= OTHERS
    assert count.all() <= ALL
    assert count.lstms() == 0


@pytest.mark.medium
def test_half_precision_keeps_its_budget():
    count = of_step("bf16")
    assert count.all() <= BF16


class Small(nn.Module):
    """Operators whose backward passes broadcast, cast, join and leave gradients out."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(4, 6, 3)
        self.scale = nn.Parameter(torch.ones(6, 1))
        self.unused = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.conv(x).chunk(2, dim=1)
        y = torch.cat([second, torch.tanh(first) * second]) * self.scale[:3]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = F.linear(y, self.conv.weight[:, :, 0].new_ones(2, y.size(2)))
        return y.float().square().mean() + self.scale.sum()


def test_walked_backward_passes_are_those_of_the_engine():
    torch.manual_seed(0)
    net, x = Small(), torch.randn(2, 4, 9)
    visited = []
    walk_backward([net(x), 2 * net(x)], visited.append)
    walked = {name: p.grad for name, p in net.named_parameters()}
    net.zero_grad()
    torch.autograd.backward([net(x), 2 * net(x)])
    assert len(visited) > 10
    assert walked["unused"] is None
    for name, p in net.named_parameters():
        if p.grad is not None:
            torch.testing.assert_close(walked[name], p.grad)


def counted(call) -> dict[str, int]:
    with fake_gpu(), torch.device("cuda"), Launches() as count:
        call()
    return {name: n for (_, name), n in count.operators.items()}


def test_what_operators_launch():
    def views():
        x = torch.empty(4, 6)
        x.t()[1:].unsqueeze(0).expand(3, -1, -1).unflatten(1, (-1, 1)).detach()

    assert counted(views) == {}
    assert counted(lambda: torch.zeros(3) + 1) == {"zeros": 1, "add": 1}
    shapes = (2, 3, 4), (5, 3, 1), (5,)
    assert counted(lambda: F.conv1d(*map(torch.empty, shapes))) == {"convolution": 2}
    assert counted(lambda: F.conv1d(*map(torch.empty, shapes[:2]))) == {"convolution": 1}
    # 110 tensors fill a kernel, and so do 320 pieces of 65,536 numbers
    assert counted(lambda: torch._foreach_add_([torch.empty(1)] * 111, 1)) == {"_foreach_add_": 2}
    large = [640 * 65536, 1]
    assert counted(lambda: torch._foreach_add_([torch.empty(n) for n in large], 1)) == {
        "_foreach_add_": 3
    }
    assert counted(lambda: torch.ones(2, device="cpu").neg()) == {}


def test_autocast_casts_as_on_cuda():
    def product():
        weight = nn.Parameter(torch.empty(3, 3))
        with torch.autocast("cuda", dtype=torch.bfloat16):
            y = weight @ weight @ torch.empty(3, 3)
            torch.softmax(y, 0)

    # the weight once, the other, and the product to fp32
    assert counted(product) == {"_to_copy": 3, "mm": 2, "_softmax": 1}


def test_lstms_are_modelled():
    told = []

    def run(lstm, x):
        with fake_gpu(lstm=lambda *call: told.append(call)), torch.device("cuda"):
            out, _ = lstm()(torch.empty(x))
            torch.autograd.backward([out.sum()])
            return out.shape

    two_ways = run(lambda: nn.LSTM(3, 5, batch_first=True, bidirectional=True), (2, 7, 3))
    assert two_ways == (2, 7, 10)
    assert told == [("forward", 2 * 2 * 7), ("backward", 4 * 2 * 7)]
    told.clear()
    assert run(lambda: nn.LSTM(3, 5), (7, 2, 3)) == (7, 2, 5)
    assert told == [("forward", 2 * 7), ("backward", 4 * 7)]


@pytest.mark.medium
def test_as_reference_launches_what_the_reference_does():
    """20,433 were counted of that trainer, 3 readings of its LSTM among them."""
    batch = synthetic_batch(2, 400, 120, ModelConfig(), DataConfig())
    count = count_step(TrainConfig(), batch, kind=AsReferenceStep)
    assert count.all() == pytest.approx(20_433, rel=0.03)
    assert count.by_part["LSTM forward"] == 2 * 2 * 241 * 2

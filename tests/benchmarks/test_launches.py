"""Kernels of a training step: how they are counted, and what each part may launch."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.fake_gpu import fake_gpu, walk_backward
from benchmarks.launches import Launches, count_step
from benchmarks.step import synthetic_batch
from data.config import DataConfig
from trainable.config import ModelConfig, TrainConfig

# at most so many kernels of a part, the published structure, fp32; LSTMs in parts of their own
BUDGET = {
    "alignment": 40,
    "G forward: sdp": 340,
    "G backward: sdp": 700,
    "G forward: flow": 680,
    "G backward: flow": 1110,
    "G forward: dec": 450,
    "G backward: dec": 550,
    "G forward: enc_p": 260,
    "G backward: enc_p": 410,
    "G forward: enc_q": 230,
    "G backward: enc_q": 290,
    "WavLM forward": 800,
    "G backward: WavLM": 500,
    "D forward": 390,
    "D, DUR, WD backward: D": 180,
    "G backward: D": 150,
    "generator's losses": 240,
    "G backward: generator's losses": 320,
    "optimizers": 100,
    "report": 60,
}
OTHERS = 530  # all other parts together
ALL = 12_000  # without the LSTMs
BF16 = 15_300


def of_step(precision: str) -> Launches:
    batch = synthetic_batch(2, 400, 120, ModelConfig(), DataConfig())
    return count_step(TrainConfig(precision=precision), batch)


@pytest.mark.medium
def test_parts_keep_their_budgets():
    count = of_step("fp32")
    over = {part: count.by_part[part] for part, n in BUDGET.items() if count.by_part[part] > n}
    assert not over, f"kernels of parts above their budgets: {over}"
    lstms = {"LSTM forward", "LSTM backward"}
    others = sum(n for part, n in count.by_part.items() if part not in BUDGET.keys() | lstms)
    assert others <= OTHERS
    assert count.all() - count.lstms() <= ALL
    # tokens, directions, and readings of the text: 2 with a backward pass, of 3
    assert count.by_part["LSTM forward"] <= 2 * 2 * 241 * 2
    assert count.by_part["LSTM backward"] <= 4 * 2 * 241 * 2


@pytest.mark.medium
def test_half_precision_keeps_its_budget():
    count = of_step("bf16")
    assert count.all() - count.lstms() <= BF16


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

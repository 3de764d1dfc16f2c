"""The step's benchmark: redundant work changes no loss, operations are counted right."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from benchmarks import step as benchmark
from benchmarks.as_reference import AsReferenceStep
from benchmarks.parts import FlopCount, KeptForBackward, in_parts
from benchmarks.step import (
    Subject,
    command_line,
    in_turn,
    largest_difference,
    measure,
    rewound,
    synthetic_batch,
)
from tests.tiny import tiny_batch, tiny_config, tiny_state
from tests.trainable.networks.kernels.test_lstm import gates_of
from trainable.flops import CORRECTED, PEAKS, attainable, peak
from trainable.learning.step import TrainingStep
from trainable.networks.kernels.lstm import recurrence


@pytest.mark.medium
def test_as_reference_does_more_and_computes_the_same():
    cfg = tiny_config(micro_batches_per_step=1)
    state, batch = tiny_state(cfg), tiny_batch(cfg, 0)
    rewind, heard = rewound(state), []
    state.slm.wavlm.register_forward_hook(lambda *_: heard.append(torch.is_grad_enabled()))
    results = []
    for kind, passes in (
        (TrainingStep, [True, False]),
        (AsReferenceStep, [False, False, False, True, True]),
    ):
        heard.clear()
        scalars, counted = Subject(kind(state, cfg.train, cfg.data), batch).counted()
        rewind()
        assert heard == passes
        assert sum(counted["flops_by_part"].values()) == counted["flops_corrected"]
        results.append((scalars, counted["flops"]))
    assert largest_difference(results[0][0], results[1][0]) < 1e-5
    assert results[1][1] > 1.05 * results[0][1]


@pytest.mark.parametrize("groups", [1, 4])
def test_flops_of_a_convolution(groups):
    conv = nn.Conv1d(8, 12, 5, padding=2, groups=groups)
    forward = 2 * 3 * 10 * 12 * (8 // groups) * 5
    with FlopCount() as count:
        conv(torch.rand(3, 8, 10, requires_grad=True)).sum().backward()
    assert count.corrected.get_total_flops() == 3 * forward
    assert count.torch.get_total_flops() == (2 + groups) * forward


def test_flops_of_an_lstm():
    lstm = nn.LSTM(6, 5, batch_first=True, bidirectional=True)
    with FlopCount() as count:
        lstm(torch.rand(3, 7, 6, requires_grad=True))[0].sum().backward()
    assert count.corrected.get_total_flops() == 3 * 2 * (2 * 3 * 7 * 4 * 5 * (6 + 5))


def test_flops_of_our_lstm_operator():
    """What a GPU with Triton computes in place of torch's LSTM: the same products."""
    lstm = nn.LSTM(6, 5, batch_first=True, bidirectional=True)
    x = torch.rand(3, 7, 6, requires_grad=True)
    with FlopCount() as count:
        recurrence(*gates_of(lstm, x)).sum().backward()
    assert count.corrected.get_total_flops() == 3 * 2 * (2 * 3 * 7 * 4 * 5 * (6 + 5))


@pytest.mark.parametrize("layers", [1, 2])
def test_flops_of_an_lstm_on_a_gpu(layers):
    """By the shapes that cuDNN's operator is given: all weights of all layers and directions."""
    lstm = nn.LSTM(6, 5, layers, batch_first=True, bidirectional=True)
    x = torch.rand(3, 7, 6, requires_grad=True)
    with FlopCount() as count:
        lstm(x)[0].sum().backward()
    weights = [w.shape for w in lstm.parameters()]
    forward, backward = (
        CORRECTED[each](x.shape, weights, 4, out_shape=None)
        for each in (torch.ops.aten._cudnn_rnn, torch.ops.aten._cudnn_rnn_backward)
    )
    assert forward + backward == count.corrected.get_total_flops()


@pytest.mark.parametrize(
    ("name", "of"),
    [
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA L4", "L4"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA A100-SXM4-40GB", "A100"),
        ("NVIDIA GeForce RTX 4090", "4090"),
        ("NVIDIA L40", None),
        ("NVIDIA A10G", None),
    ],
)
def test_a_gpus_peak_is_its_own(monkeypatch, name, of):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: name)
    gpu = torch.device("cuda")
    full, tf32, half = PEAKS[of] if of else (None, None, None)
    torch.set_float32_matmul_precision("highest")
    assert (peak(gpu, "fp32"), peak(gpu, "bf16")) == (full, half)
    torch.set_float32_matmul_precision("high")
    assert peak(gpu, "fp32") == tf32


@pytest.mark.medium
def test_parts_add_up_and_leave_nothing_behind():
    cfg = tiny_config(micro_batches_per_step=1)
    step = TrainingStep(tiny_state(cfg), cfg.train, cfg.data)
    ticks = iter(range(10_000))
    with in_parts(step, lambda: next(ticks)) as parts:
        step([(0, tiny_batch(cfg, 0))])
    assert sum(parts.values()) == next(ticks) - 1
    assert {
        "alignment",
        "G forward: dec",
        "D backward",
        "DUR backward",
        "WD backward",
        "G backward",
    } <= set(parts)
    assert "update" not in vars(step)


def test_what_is_kept_for_the_backward_pass():
    x, weight = torch.rand(1000), torch.rand(1000, requires_grad=True)
    kept = KeptForBackward([weight])
    with kept.watch():
        y = (x * weight).exp()  # keeps x, and its own result
        assert (kept.now, kept.most) == (8000, 8000)
        z = y.sin() * x  # its cosine's argument is y, which is kept; the sine is not kept, and x is
        assert kept.now == 8000
        z.sum().backward()
    assert (kept.now, kept.most) == (0, 8000)


@pytest.mark.medium
def test_checkpointing_keeps_less():
    found = [
        Subject(TrainingStep(tiny_state(cfg), cfg.train, cfg.data), tiny_batch(cfg, 0)).kept()
        for cfg in (
            tiny_config(micro_batches_per_step=1, activation_checkpointing=on)
            for on in (False, True)
        )
    ]
    assert 0 < found[1] < 0.8 * found[0]


def test_synthetic_batch():
    cfg = tiny_config()
    batch = synthetic_batch(4, 40, 9, cfg.model, cfg.data)
    assert batch.x.shape == batch.token_index.shape == (4, 19)
    assert batch.spec.shape == (4, 1025, 40)
    assert batch.language.amax(1).tolist() == [0, 1, 2, 0]
    assert [bool(features.any()) for features in batch.bert_features()] == [True] * 3


class Paced:
    """A subject whose steps take the seconds that it is told, one after the other."""

    def __init__(self, name, seconds, order):
        self.name, self.seconds, self.order = name, iter(seconds), order

    def timed(self) -> float:
        self.order.append(self.name)
        return next(self.seconds)


def test_ratios_are_medians_of_pairs_in_alternating_order():
    order = []
    ours, exact = Paced("bf16", [1.0, 2.0, 4.0], order), Paced("fp32", [3.0, 2.0, 8.0], order)
    result = in_turn({"seconds_per_step": ours, "fp32_seconds_per_step": exact}, 3)
    assert order == ["bf16", "fp32", "fp32", "bf16", "bf16", "fp32"]
    assert result.pop("times") == {
        "seconds_per_step": [1.0, 2.0, 4.0],
        "fp32_seconds_per_step": [3.0, 2.0, 8.0],
    }
    # of 3, 1 and 2
    assert result == {"seconds_per_step": 2.0, "fp32_seconds_per_step": 3.0, "ratio_to_fp32": 2.0}


@pytest.mark.medium
def test_what_the_device_can_do_is_measured():
    assert 1e8 < attainable(torch.device("cpu"), "fp32") < 1e14


@pytest.mark.medium
@pytest.mark.parametrize(
    ("option", "used"), [("--against-fp32", ["bf16", "fp32"]), ("--as-reference", ["fp32"])]
)
def test_what_is_timed_beside_our_step(option, used, monkeypatch):
    """The whole command, on the demo's networks; where it needs no bf16, which CPUs may emulate."""
    cfg, precisions = tiny_config(), []

    def state(train, *_):
        precisions.append(train.precision)
        return tiny_state(replace(cfg, train=train))

    monkeypatch.setattr(benchmark, "full_state", state)
    monkeypatch.setattr(benchmark, "ModelConfig", lambda: cfg.model)
    monkeypatch.setattr(benchmark, "DataConfig", lambda: cfg.data)
    # its bf16 takes a minute on a CPU that has none
    monkeypatch.setattr(benchmark, "attainable", lambda *_: 1e12)
    options = [
        "--precision",
        used[0],
        "--threads",
        "1",
        "--batch",
        "2",
        "--frames",
        "48",
        "--tokens",
        "9",
        "--pairs",
        "1",
        option,
    ]
    result = measure(command_line().parse_args(options))
    against_fp32 = option == "--against-fp32"
    assert precisions == used
    other, ratio = (
        ("fp32_seconds_per_step", "ratio_to_fp32")
        if against_fp32
        else ("as_reference_seconds_per_step", "ratio")
    )
    assert result[ratio] == result[other] / result["seconds_per_step"] > 0
    assert ("as_reference_flops" in result) != against_fp32
    assert result["mfu"] > 0

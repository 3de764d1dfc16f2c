"""The LSTM's recurrence and its Triton kernels are torch's LSTM."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.fake_gpu import fake_gpu
from benchmarks.launches import Launches
from trainable.networks.kernels import lstm as definition

kernels = pytest.importorskip("trainable.networks.kernels.lstm_triton")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
WAYS = ("l0", "l0_reverse")


def gates_of(lstm: nn.LSTM, x: Tensor) -> tuple[Tensor, Tensor]:
    """What the inputs give to the gates, [B, T, 2, 4 H], and the weights of the states."""
    of_inputs, of_states, *biases = (
        torch.cat([getattr(lstm, f"{name}_{way}") for way in WAYS])
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    return F.linear(x, of_inputs, sum(biases)).unflatten(2, (2, -1)), of_states.unflatten(
        0, (2, -1)
    )


def case(H: int, B: int, T: int, dtype: torch.dtype) -> tuple[nn.LSTM, Tensor]:
    torch.manual_seed(H)
    lstm = nn.LSTM(6, H, batch_first=True, bidirectional=True).to(DEVICE, dtype)
    return lstm, torch.randn(B, T, 6, device=DEVICE, dtype=dtype, requires_grad=True)


@pytest.mark.parametrize(("B", "T"), [(3, 7), (1, 1)])
def test_recurrence(B, T):
    lstm, x = case(5, B, T, torch.float64)
    theirs, ours = lstm(x)[0], definition.recurrence(*gates_of(lstm, x)).flatten(2)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    to = torch.randn_like(theirs)
    found, wanted = (
        torch.autograd.grad(out, [x, *lstm.parameters()], to) for out in (ours, theirs)
    )
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-11)


# fewer channels than a tile, several tiles, a part of one; more rows than a block has
@pytest.mark.parametrize(("H", "B", "T"), [(5, 3, 6), (40, 2, 3), (8, 18, 2)])
def test_triton_kernels(H, B, T, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    lstm, x = case(H, B, T, torch.float32)
    gates, weight = (tensor.detach() for tensor in gates_of(lstm, x))
    states = definition.lstm_in_torch(gates, weight)
    torch.testing.assert_close(kernels.forward(gates, weight), states, rtol=1e-5, atol=1e-6)
    to = torch.randn(T, B, 2, H, device=DEVICE).transpose(0, 1)  # any layout
    torch.testing.assert_close(
        kernels.backward(to, weight, *states),
        definition.lstm_backward_in_torch(to, weight, *states),
        rtol=1e-5,
        atol=1e-6,
    )


def test_a_gpu_reads_in_a_few_kernels():
    """However long the text is."""
    found = {}
    for T in (7, 70):
        with fake_gpu(), torch.device("cuda"), Launches() as count:
            lstm = nn.LSTM(6, 5, batch_first=True, bidirectional=True)
            count.by_part.clear()
            out = definition.read_both_ways(lstm, torch.empty(2, T, 6))
            assert out.shape == (2, T, 10)
            torch.autograd.backward([out.sum()])
            assert all(p.grad is not None and p.grad.shape == p.shape for p in lstm.parameters())
        found[T] = count.all()
    assert found[7] == found[70] <= 25

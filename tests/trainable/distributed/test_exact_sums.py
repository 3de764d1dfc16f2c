"""Integer sums: equal bits in every order, near the mean in float64, whatever the values."""

import pytest
import torch
import torch.distributed as dist
from torch import nn

from trainable.distributed import exact_sums
from trainable.distributed.exact_sums import BLOCK, ExactSums

SIZES = (1, BLOCK - 1, BLOCK, 3 * BLOCK + 7)


def mean(gradients: list[list[torch.Tensor]], bucket_bytes: float = 2**20) -> list[torch.Tensor]:
    """What a worker that has all micro-batches writes to `.grad`."""
    parameters = [nn.Parameter(torch.zeros_like(g)) for g in gradients[0]]
    named = {str(i): p for i, p in enumerate(parameters)}
    sums = ExactSums(named, len(gradients), bucket_bytes)
    for own in gradients[:-1]:
        for p, g in zip(parameters, own, strict=True):
            p.grad = g.clone()
        sums.keep()
    with sums.sending():
        for p, g in zip(parameters, gradients[-1], strict=True):
            p.grad = g.clone()
    sums.finish()
    return [p.grad for p in parameters]


def made_up(micro_batches: int, spread: float) -> list[list[torch.Tensor]]:
    """Normal gradients, of which blocks and elements have magnitudes of their own."""
    g = torch.Generator().manual_seed(0)
    scales = [torch.randn(n, generator=g).mul(spread).exp() for n in SIZES]
    return [[torch.randn(len(s), generator=g) * s for s in scales] for _ in range(micro_batches)]


@pytest.mark.parametrize("micro_batches", [1, 2, 3, 8, 100])
def test_the_order_and_the_buckets_do_not_matter(micro_batches):
    gradients = made_up(micro_batches, 3.0)
    forwards = mean(gradients)
    backwards = mean(gradients[::-1], bucket_bytes=1)
    assert all(map(torch.equal, forwards, backwards))


@pytest.mark.parametrize(
    ("micro_batches", "bits"), [(1, 24), (4, 24), (5, 23), (64, 20), (512, 17)]
)
def test_a_mean_is_as_near_as_its_bits(micro_batches, bits):
    """Of each block, in relation to its largest gradient."""
    gradients = made_up(micro_batches, 3.0)
    found = mean(gradients)
    for i, got in enumerate(found):
        all_of_it = torch.stack([own[i].double() for own in gradients])
        for block in range(0, len(got), BLOCK):
            part = all_of_it[:, block : block + BLOCK]
            off = (got[block : block + BLOCK] - part.mean(0)).abs().max()
            assert off <= 2.0**-bits * part.abs().max()


@pytest.mark.parametrize("value", [1e-45, 1e-38, 1e-30, 1.0, 1e30, 3.4e38])
def test_every_magnitude_has_its_scale(value):
    gradients = [[torch.tensor([value, -value, 0.0, value])] for _ in range(4)]
    gradients[3][0][3] = -value
    (got,) = mean(gradients)
    expected = torch.tensor([value, -value, 0.0, value / 2])
    assert torch.allclose(got, expected, rtol=1e-6, atol=2.0**-126)


def test_zeros_stay_zeros():
    assert not any(mean([[torch.zeros(BLOCK + 1)]] * 3)[0])


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("where", [0, 2])
def test_what_is_not_finite_makes_its_block_nan(value, where):
    gradients = made_up(3, 1.0)
    gradients[where][3][BLOCK + 5] = value
    *others, got = mean(gradients)
    assert got[BLOCK : 2 * BLOCK].isnan().all()
    assert got[:BLOCK].isfinite().all()
    assert got[2 * BLOCK :].isfinite().all()
    assert all(other.isfinite().all() for other in others)


class AnotherWorker:
    """A worker with gradients of zero, in place of the process group; notes what is sent."""

    def __init__(self, monkeypatch):
        self.sent: list[torch.Tensor] = []
        monkeypatch.setattr(exact_sums, "world_size", lambda: 2)
        monkeypatch.setattr(dist, "get_rank", lambda: 0)
        monkeypatch.setattr(dist, "all_reduce", self.all_reduce)

    def all_reduce(self, tensor, op=dist.ReduceOp.SUM, async_op=False):
        self.sent.append(tensor)
        return self

    def wait(self):
        """The sums are those of this worker."""


def test_as_many_bytes_as_floats_are_sent_while_the_backward_pass_goes_on(monkeypatch):
    """From the second step on, in the order in which gradients became ready in the first."""
    layers = nn.Sequential(*(nn.Linear(BLOCK, BLOCK, bias=False) for _ in range(8)))
    named = dict(layers.named_parameters())
    alone = ExactSums(named, 2, bucket_bytes=4 * BLOCK**2)
    with alone.sending():
        layers(torch.ones(1, BLOCK)).sum().backward()
    alone.finish()
    expected = [p.grad for p in named.values()]

    another = AnotherWorker(monkeypatch)
    sums = ExactSums(named, 2, bucket_bytes=4 * BLOCK**2)
    during = []
    for _ in range(2):
        layers.zero_grad()
        another.sent = []
        with sums.sending():
            layers(torch.ones(1, BLOCK)).sum().backward()
        during.append([t.dtype for t in another.sent].count(torch.int32))
        sums.finish()
        assert all(map(torch.equal, [p.grad for p in named.values()], expected))
    assert during == [0, 7]  # all buckets but the last
    assert [bucket.parameters[0] for bucket in sums.buckets] == [*named.values()][::-1]
    gradients = sum(p.nbytes for p in named.values())
    assert gradients < sum(t.nbytes for t in another.sent) < 1.005 * gradients


def test_a_parameter_without_a_gradient_is_named():
    sums = ExactSums({"g.dec.weight": nn.Parameter(torch.zeros(3))}, 1, 1)
    with sums.sending():
        pass
    with pytest.raises(AssertionError, match=r"g\.dec\.weight takes no part"):
        sums.finish()

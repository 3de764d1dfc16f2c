"""Nothing in a training step reads a tensor's value on the host, or makes a tensor there.

On a GPU such a read waits for the device, as does the copy of what is made on the host. Both show
on the CPU too: as one of a few operators or methods.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import WavLMConfig, WavLMModel

from data.audio.spectrogram import mel_spectrogram, spec_to_mel, spectrogram
from tests.tiny import tiny_batch, tiny_config, tiny_state
from tests.trainable.networks import tiny
from trainable.learning.losses import (
    discriminator_loss,
    feature_loss,
    generator_loss,
    kl_loss,
    wavlm_discriminator_loss,
    wavlm_feature_loss,
    wavlm_generator_loss,
)
from trainable.learning.optimizer import grad_norm
from trainable.learning.state import TrainState
from trainable.learning.step import TrainingStep
from trainable.networks.discriminators.duration import DurationDiscriminator
from trainable.networks.discriminators.period import MultiPeriodDiscriminator
from trainable.networks.discriminators.wavlm import WavLMDiscriminator
from trainable.networks.wavlm import WavLMFeatures

READS = ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "equal", "is_nonzero")
# unseen as operators on the CPU
METHODS = (Tensor.cpu, Tensor.numpy, Tensor.tolist, Tensor.item, Tensor.__array__)
MAKERS = (torch.tensor, torch.as_tensor, Tensor.new_tensor)
MEL = {"n_fft": 64, "num_mels": 10, "sampling_rate": 8000, "hop_size": 16, "win_size": 64}


class NoReads(TorchDispatchMode):
    """Fails on operators that hand a value to Python, or whose output shape depends on values."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name.partition("::")[2]
        if name in READS:
            raise AssertionError(f"aten::{name} reads the device")
        if name in ("index", "index_put_") and any(
            t is not None and t.dtype == torch.bool for t in args[1]
        ):
            raise AssertionError("a boolean index reads the device")
        return func(*args, **(kwargs or {}))


class NoHostMethods(TorchFunctionMode):
    """Fails on methods that hand values to Python or take them, but for tensors of `host`."""

    def __init__(self, host: tuple[Tensor, ...]):
        super().__init__()
        self.host = host

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in METHODS and not any(args[0] is tensor for tensor in self.host):
            raise AssertionError(f"{func.__name__} reads the device")
        if func in MAKERS:
            raise AssertionError(
                f"{func.__name__} makes a tensor on the host: its copy waits for the device"
            )
        return func(*args, **(kwargs or {}))


@contextmanager
def no_host_sync(*host: Tensor) -> Iterator[None]:
    with NoHostMethods(host), NoReads():
        yield


def test_the_watch_sees_reads():
    x, index = torch.tensor([1.0, 2.0]), torch.tensor([True, False])
    reads = (
        *(lambda: x.sum().item(), lambda: x[index], lambda: bool(x.max() > 1), lambda: x.nonzero()),
        *(
            lambda: x.cpu(),
            lambda: x.tolist(),
            lambda: x.numpy(),
            lambda: float(x[0]),
            lambda: [*range(x[0].long())],
        ),
        *(
            lambda: x.masked_select(index),
            lambda: torch.equal(x, x),
            lambda: x.new_tensor(1.0),
            lambda: x.unique(),
        ),
    )
    for read in reads:
        with pytest.raises(AssertionError, match="the device"), no_host_sync():
            read()
    with no_host_sync(x):
        x.numpy()


@pytest.mark.medium
@pytest.mark.parametrize(
    ("reduction", "precision", "micro_batches"),
    [
        ("fast", "fp32", 1),
        ("fast", "fp32", 2),
        ("fast", "bf16", 1),
        ("fast", "fp16", 1),
        ("exact", "fp32", 1),
        ("exact", "fp32", 2),
    ],
)
def test_global_step(reduction, precision, micro_batches):
    """The whole step, from the networks to the report."""
    cfg = tiny_config(
        reduction=reduction, precision=precision, micro_batches_per_step=micro_batches
    )
    state, batches = tiny_state(cfg), [(i, tiny_batch(cfg, i)) for i in range(micro_batches)]
    # torchaudio computes the new length with a tensor, on the CPU
    state.slm.resample = torch.nn.Identity()
    step = TrainingStep(state, cfg.train, cfg.data)
    step(batches)  # filters and moments are made once
    with no_host_sync(*(batch.rows for _, batch in batches)):
        report = step(batches)
    assert torch.isfinite(report.scalars["loss/g/total"])


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_global_step_on_a_gpu(precision):
    """CUDA itself says where the host would wait."""
    cfg = tiny_config(precision=precision, micro_batches_per_step=1)
    on_cpu, device = tiny_state(cfg), torch.device("cuda")
    nets = {name: net.to(device) for name, net in on_cpu.nets.items()}
    state = TrainState(nets, on_cpu.slm.to(device), cfg.model, cfg.train)
    step, batches = TrainingStep(state, cfg.train, cfg.data), [(0, tiny_batch(cfg, 0).to(device))]
    for _ in range(2):  # filters and moments are made once
        step(batches)
    torch.cuda.set_sync_debug_mode("error")
    try:
        report = step(batches)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.isfinite(report.scalars["loss/g/total"])


@pytest.mark.medium
@pytest.mark.parametrize("variant", ["vits2", "residual_flow", "reference_encoder"])
def test_synthesizer(variant):
    net, text, speech = tiny.synthesizer(variant).train(), tiny.text(), tiny.speech()
    with no_host_sync():
        out = net(text, **speech)
        kl = kl_loss(out.z_p, out.logs_q, out.m_p, out.logs_p, out.y_mask)
        (out.o.sum() + out.l_length.sum() + kl).backward()
        grad_norm(net.parameters())


@pytest.mark.medium
def test_discriminators():
    d, dur = MultiPeriodDiscriminator(), DurationDiscriminator(8, 8, 3, 0.1)
    y, mask = torch.rand(2, 1, 501), torch.ones(2, 1, 5)
    with no_host_sync():
        y_d_r, y_d_g, fmap_r, fmap_g = d(y, y)
        loss = (
            discriminator_loss(y_d_r, y_d_g)[0]
            + generator_loss(y_d_g)[0]
            + feature_loss(fmap_r, fmap_g)
        )
        probabilities = dur(torch.rand(2, 8, 5), mask, torch.rand(2, 1, 5), torch.rand(2, 1, 5))
        (loss + discriminator_loss(*probabilities)[0]).backward()


def test_mels():
    y, lengths = torch.rand(2, 400), torch.tensor([400, 299])
    mel_spectrogram(y, **MEL)  # the filters are made once, on the CPU
    with no_host_sync():
        spec = spectrogram(y, MEL["n_fft"], MEL["hop_size"], MEL["win_size"], lengths=lengths)
        spec_to_mel(spec, **{key: MEL[key] for key in ("n_fft", "num_mels", "sampling_rate")})
        mel_spectrogram(y.requires_grad_(), **MEL).sum().backward()


def test_wavlm():
    config = WavLMConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        conv_dim=(8, 8),
        conv_kernel=(10, 4),
        conv_stride=(5, 8),
        num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=2,
    )
    slm, wd = WavLMFeatures(WavLMModel(config), 44100), WavLMDiscriminator(16, 3, 4)
    # torchaudio computes the new length with a tensor, on the CPU
    slm.resample = torch.nn.Identity()
    y_hat = torch.rand(2, 1, 4000, requires_grad=True)
    with no_host_sync():
        with torch.no_grad():
            real = slm(torch.rand(2, 4000))
        generated = slm(y_hat)
        wavlm_discriminator_loss(wd, real, generated).backward()
        (wavlm_feature_loss(real, generated) + wavlm_generator_loss(wd, generated)).backward()
    assert y_hat.grad is not None
    assert y_hat.grad.any()
    slm.train()
    assert not any(module.training for module in slm.modules())
    assert not any(p.requires_grad for p in slm.parameters())

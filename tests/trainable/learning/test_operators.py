"""What a step computes with: deterministic operators, no filled memory, no TF32 where it harms.

On a GPU each of these is an error or a silent loss; the operators are the same on a CPU.
"""

import inspect
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from data.audio.spectrogram import mel_spectrogram
from tests.tiny import tiny_batch, tiny_config, tiny_state
from trainable.hardware import set_up_torch
from trainable.learning.step import TrainingStep, mel_parameters
from trainable.networks.generator.alignment import AlignmentSearch, lay_out

CPU = torch.device("cpu")
# of torch's list of what has no deterministic kernel on CUDA: words of it -> operators
LISTED = {
    "AvgPool3d": "avg_pool3d_backward",
    "AdaptiveAvgPool2d": "_adaptive_avg_pool2d_backward",
    "AdaptiveAvgPool3d": "_adaptive_avg_pool3d_backward",
    "MaxPool3d": "max_pool3d_with_indices_backward",
    "AdaptiveMaxPool2d": "adaptive_max_pool2d_backward",
    "FractionalMaxPool2d": "fractional_max_pool2d_backward",
    "FractionalMaxPool3d": "fractional_max_pool3d_backward",
    "MaxUnpool": "max_unpool",
    "interpolate": "upsample",
    "ReflectionPad": "reflection_pad",
    "NLLLoss": "nll_loss",
    "CTCLoss": "ctc_loss",
    "EmbeddingBag": "embedding_bag",
    "put_": "put_",
    "histc": "histc",
    "bincount": "bincount",
    "median": "median",
    "grid_sample": "grid_sampler",
    "cumsum": "cumsum",
    "scatter_reduce": "scatter_reduce",
    "resize_": "resize_",
}
ATTENTION = "scaled_dot_product|_efficient_attention|_flash_attention|_cudnn_attention"


class Watched(TorchDispatchMode):
    """Calls a function with each operator and its arguments; it may change the arguments."""

    def __init__(self, see: Callable[[str, Any], Any]):
        super().__init__()
        self.see = see

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        args = self.see(str(func), args)
        return func(*args, **(kwargs or {}))


def step_of(**train: Any) -> Callable[[], object]:
    """Return a global step of the demo's networks, as a worker sets it up; the first is done."""
    cfg = tiny_config(micro_batches_per_step=1, **train)
    set_up_torch(cfg.train, 1, CPU)
    step = TrainingStep(tiny_state(cfg), cfg.train, cfg.data)
    batch = [(0, tiny_batch(cfg, 0))]
    step(batch)
    return lambda: step(batch)


def counted(step: Callable[[], object]) -> Counter[str]:
    counts: Counter[str] = Counter()

    def see(name: str, args: Any) -> Any:
        counts[name.removeprefix("aten.").split(".")[0]] += 1
        return args

    with Watched(see):
        step()
    return counts


@pytest.fixture(scope="module")
def operators() -> Counter[str]:
    return counted(step_of(reduction="exact"))


@pytest.mark.medium
def test_an_exact_step_has_no_operator_that_torch_calls_non_deterministic(operators):
    listed = inspect.getdoc(torch.use_deterministic_algorithms)
    assert listed is not None
    refused = listed.split("operations will throw a\n")[1].split("In addition")[0]
    known = re.findall(r"\* :(?:class|func):`[\w.]*?(\w+)`", refused)
    assert known
    unknown = [name for name in known if not any(name.startswith(key) for key in LISTED)]
    assert unknown == [], "torch's list has grown: look whether the step has any of these"

    found = {op for op in operators for each in LISTED.values() if op.startswith(each)}
    # listed still, but torch has had a deterministic kernel for it since CUDA 11.4
    assert found <= {"cumsum"}
    assert not [op for op in operators if re.search(ATTENTION, op)]


def test_torch_does_not_refuse_a_running_sum():
    """What it refuses on CUDA is a name in its library: cumsum's is in no build of this torch."""
    library = Path(torch.__file__).parent / "lib/libtorch_cuda.so"
    if not library.exists():
        pytest.skip("this torch has no CUDA")
    content = library.read_bytes()
    assert b"\0reflection_pad1d_backward_out_cuda\0" in content
    assert b"\0cumsum_cuda_kernel\0" not in content


def fills_of(step: Callable[[], object]) -> int:
    with torch.autograd.profiler.profile() as profile:
        step()
    # torch's own summary of a step takes seconds
    return sum(event.name() == "aten::fill_" for event in profile.kineto_results.events())


@pytest.mark.medium
def test_an_exact_step_fills_no_fresh_memory():
    exact = step_of(reduction="exact")
    assert torch.are_deterministic_algorithms_enabled()
    fills = fills_of(exact)
    torch.utils.deterministic.fill_uninitialized_memory = True  # torch's own default
    assert fills_of(exact) > 2 * fills


def rounded(tensor: Any) -> Any:
    """Round a factor to TF32's 10 bits of fraction."""
    if not isinstance(tensor, Tensor) or tensor.dtype != torch.float32:
        return tensor
    bits = tensor.contiguous().view(torch.int32)
    return (bits + 0x1000 & ~0x1FFF).view(torch.float32)


def with_tf32() -> Watched:
    """Imitate a GPU whose matrix products round their factors, unless the process forbids it."""

    def see(name: str, args: Any) -> Any:
        product = re.fullmatch(r"aten\.(mm|bmm|addmm|baddbmm|matmul)\..*", name)
        if product is None or torch.get_float32_matmul_precision() == "highest":
            return args
        return tuple(rounded(each) for each in args)

    return Watched(see)


@pytest.fixture
def tf32_is_allowed():
    torch.set_float32_matmul_precision("high")


def test_tf32_is_imitated(tf32_is_allowed):
    a, b = torch.randn(2, 8, 8).unbind(0)
    with with_tf32():
        assert not torch.equal(a @ b, torch.linalg.multi_dot([a.double(), b.double()]).float())
        found = a @ b
    torch.set_float32_matmul_precision("highest")
    with with_tf32():
        assert not torch.equal(found, a @ b)


@pytest.mark.medium
def test_alignment_layout_and_mels_are_those_of_full_precision(tf32_is_allowed, monkeypatch):
    """In a real step, with its backward pass: each call again, without TF32, gives the same."""
    calls: list[str] = []

    def checked(name: str, original: Callable) -> Callable:
        def call(*args, **kwargs):
            state = torch.get_rng_state()
            found = original(*args, **kwargs)
            allowed = torch.get_float32_matmul_precision()
            assert allowed == "high"
            after = torch.get_rng_state()
            torch.set_rng_state(state)
            torch.set_float32_matmul_precision("highest")
            again = original(*args, **kwargs)
            torch.set_float32_matmul_precision(allowed)
            torch.set_rng_state(after)
            assert torch.equal(found, again), name
            calls.append(name)
            return found

        return call

    monkeypatch.setattr(AlignmentSearch, "align", checked("align", AlignmentSearch.align))
    for where, name in (
        ("trainable.networks.generator.synthesizer", "lay_out"),
        ("trainable.learning.step", "spec_to_mel"),
        ("trainable.learning.step", "mel_spectrogram"),
    ):
        module = __import__(where, fromlist=[name])
        monkeypatch.setattr(module, name, checked(name, getattr(module, name)))

    step = step_of(matmul_precision="high")
    calls.clear()
    with with_tf32():
        step()
    assert set(calls) == {"align", "lay_out", "spec_to_mel", "mel_spectrogram"}


def gradient_of(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    own = x.clone().requires_grad_()
    out = function(own)
    out.backward(torch.linspace(-1, 1, out.numel()).view_as(out))
    assert own.grad is not None
    return own.grad


@pytest.mark.parametrize("what", ["mel", "layout"])
def test_gradients_through_mels_and_layout_are_those_of_full_precision(tf32_is_allowed, what):
    path = torch.zeros(2, 1, 9, 4)
    for frame, token in enumerate([0, 0, 1, 1, 1, 2, 3, 3]):
        path[0, 0, frame, token] = 1
    path[1, 0, :3, 0] = 1
    if what == "layout":
        x = torch.randn(2, 5, 4)

        def function(each: Tensor) -> Tensor:
            return lay_out(path, each)
    else:
        parameters = mel_parameters(tiny_config().data, waveform=True)
        x = 0.1 * torch.randn(2, 4096)

        def function(each: Tensor) -> Tensor:
            return mel_spectrogram(each, **parameters)

    with with_tf32():
        found = gradient_of(function, x)
    torch.set_float32_matmul_precision("highest")
    assert torch.equal(found, gradient_of(function, x))


def test_a_layout_is_the_product_with_the_path(tf32_is_allowed):
    torch.manual_seed(0)
    path = torch.zeros(1, 1, 7, 3, dtype=torch.float64)
    for frame, token in enumerate([0, 1, 1, 1, 2]):  # two frames of padding
        path[0, 0, frame, token] = 1
    statistics = torch.randn(1, 2, 3, dtype=torch.float64, requires_grad=True)
    product = torch.matmul(statistics, path.squeeze(1).transpose(1, 2))
    assert torch.equal(lay_out(path, statistics), product)
    assert torch.equal(lay_out(path, statistics.detach()), product)
    assert torch.autograd.gradcheck(lambda s: lay_out(path, s), (statistics,))

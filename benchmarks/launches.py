"""Kernels of a training step on a GPU, counted on a CPU: `python -m benchmarks.launches`.

The step of the full structure runs on a fake GPU (benchmarks.fake_gpu), so that it takes the
branches that it takes on a real one. An operator counts as the kernels that it launches there: none
for a view, several for some (`RULES`), and one for the rest, a Triton kernel for instance. LSTMs
are modelled: cuDNN launches 2 kernels per time step and direction forward and 4 backward. What is
not seen: conversions of layouts inside cuDNN, and the second kernel of long sums and of products
whose inner dimension is cut.
"""

import argparse
import json
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch._C._autograd import _get_sequence_nr
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.as_reference import AsReferenceStep, separate_weights
from benchmarks.fake_gpu import CUDA, Node, fake_batch, fake_gpu, fake_state
from benchmarks.parts import watched_calls
from benchmarks.step import synthetic_batch
from data.config import DataConfig
from data.stream.collate import TtsBatch
from job.reports.console import table
from trainable.config import TrainConfig
from trainable.learning.step import TrainingStep
from trainable.model_config import ModelConfig
from trainable.networks.layers.weight_norm import fixed_weights, joined_weights
from trainable.networks.wavlm import GatedAttention

BATCHES = (2, 16)
FRAMES = 400
TOKENS = 120  # without the blanks between them
# operators beside views that launch nothing: they allocate, or only look
NOTHING = {
    "_local_scalar_dense",
    "_unsafe_view",
    "detach",
    "empty",
    "empty_like",
    "empty_permuted",
    "empty_strided",
    "lift_fresh",
    "new_empty",
    "new_empty_strided",
    "promote_types",
}
INPUTS_OF_CAT = 128  # that one kernel takes
# what a kernel over a list of tensors takes: tensors by the number of lists, and pieces of them
TENSORS = (0, 110, 64, 48, 36, 30)
PIECES = 320
PIECE = 65536

Arguments = Sequence[Any]


def _convolution(args: Arguments) -> int:
    """Of cuDNN's a bias is no part: another kernel adds it."""
    return 1 + (args[2] is not None)


def _convolution_backward(args: Arguments) -> int:
    """A kernel for each gradient that is asked for: input, weight, bias."""
    return sum(args[-1])


def _cat(args: Arguments) -> int:
    return -(-len(args[0]) // INPUTS_OF_CAT)


def _over_lists(lists: int) -> Callable[[Arguments], int]:
    """Return a rule for a kernel over lists of tensors: it starts again when it is full."""

    def rule(args: Arguments) -> int:
        launches = tensors = pieces = 0
        for tensor in args[0]:
            tensors += 1
            pieces += -(-tensor.numel() // PIECE)
            launches += pieces // PIECES
            pieces %= PIECES
            if tensors == TENSORS[lists]:
                launches += 1
                tensors = pieces = 0
        return launches + (tensors > 0)

    return rule


def _of_two(args: Arguments) -> int:
    """Numbers beside a list of tensors are no second list; the result is one."""
    numbers = not isinstance(args[1], Tensor) and not isinstance(args[1][0], Tensor)
    return _over_lists(2 if numbers else 3)(args)


def _index(args: Arguments) -> int:
    """A boolean index is first counted, then made numbers."""
    masks = [index for index in args[1] if index is not None and index.dtype == torch.bool]
    return 1 + 4 * len(masks)


# What an operator launches on CUDA where that is not one kernel, read off torch 2.11's sources.
RULES: dict[str, int | Callable[[Arguments], int]] = {
    "convolution": _convolution,
    "convolution_backward": _convolution_backward,
    "cat": _cat,
    "stack": _cat,
    "_foreach_add_": _over_lists(1),
    "_foreach_mul": _over_lists(2),
    "_foreach_sign": _over_lists(2),
    "_foreach_mul_": _over_lists(1),
    "_foreach_sub": _of_two,
    "_foreach_lerp_": _over_lists(2),
    "_foreach_copy_": _over_lists(2),
    # zeros, norms of pieces, and norms of these
    "_foreach_norm": lambda args: 2 + _over_lists(1)(args),
    "_fused_adamw_": _over_lists(4),
    # zeros, and a write into them
    "constant_pad_nd": 2,
    "slice_backward": 2,
    "select_backward": 2,
    "unfold_backward": 2,
    "embedding_dense_backward": 2,
    # a copy, and a change of it
    "baddbmm": 2,
    "scatter": 2,
    "scatter_add": 2,
    "index_add": 2,
    "index": _index,
    "index_put": lambda args: 1 + _index(args),
    "index_put_": _index,
    # the input's gradient, and the parameters'
    "native_layer_norm_backward": 2,
    # moments, their products with the parameters, and the result
    "native_group_norm": 3,
    "native_group_norm_backward": 5,
    # zeros, and the kernel
    "maximum_path": 2,
    # the gradients, and the sums of the parameters'
    "norm_gelu_backward": 2,
}


def kernels(operator: Any, args: Arguments) -> int:
    """Return how many kernels an operator launches on CUDA."""
    if operator.namespace in ("prim", "profiler") or operator.is_view:
        return 0
    name = operator._opname
    if operator.namespace == "aten" and name in NOTHING:
        return 0
    rule = RULES.get(name, 1)
    return rule if isinstance(rule, int) else rule(args)


class Launches(TorchDispatchMode):
    """Counts the kernels that are launched on CUDA while it is entered, by part.

    Nothing has values here, where the reference trainer's work asks for some: a number is 1, a
    truth is that some element is such, but no comparison holds, and a mask picks all.

    Attributes:
        by_part: part -> kernels.
        operators: (part, operator) -> kernels.
    """

    def __init__(self) -> None:
        super().__init__()
        self.parts = ["other"]  # that are open, the innermost last
        self.by_part = Counter[str]()
        self.operators = Counter[tuple[str, str]]()
        self.begins = [0]  # number of the next node of a graph, wherever the part changed
        self.names = ["other"]  # the part from there on
        self.phase = ""
        self.some = False  # the last operator asked whether any element is true

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Arguments = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Count an operator, and run it."""
        name = func._opname
        if name == "_local_scalar_dense" and args[0].device.type == CUDA.type:
            return self.some if args[0].dtype == torch.bool else 1.0
        if not func.is_view and func.namespace == "aten":
            self.some = name == "any"
        out = self._run(func, args, kwargs or {})
        if _on_cuda(out) or _on_cuda(args):
            self.add(func, args)
        return out

    def _run(self, func: Any, args: Arguments, kwargs: Mapping[str, Any]) -> Any:
        if func._opname == "index" and _index(args) > 1:
            (mask,) = args[1]
            return args[0].new_empty(mask.numel(), *args[0].shape[mask.dim() :])
        if func._opname == "index_put_" and _index(args) > 1:
            return args[0]
        return func(*args, **kwargs)

    def add(self, func: Any, args: Arguments) -> None:
        """Count an operator."""
        if launched := kernels(func, args):
            self.charge(func._opname, launched)

    def charge(self, name: str, launched: int, part: str | None = None) -> None:
        """Count kernels, for the part that is open if none is named."""
        part = self.parts[-1] if part is None else part
        self.by_part[part] += launched
        self.operators[part, name] += launched

    def lstm(self, direction: str, launched: int) -> None:
        """Count kernels of an LSTM."""
        self.charge("lstm", launched, f"LSTM {direction}")

    def _mark(self) -> None:
        self.begins.append(_get_sequence_nr())
        self.names.append(self.parts[-1])

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Charge what happens inside to a part, and the backward pass of it to that part's own."""
        self.parts.append(name)
        self._mark()
        yield
        self.parts.pop()
        self._mark()

    @contextmanager
    def backward(self, phase: str) -> Iterator[None]:
        """Charge what happens inside to the backward passes of the parts that are visited."""
        self.phase = phase
        self.parts.append(f"{phase} backward")
        yield
        self.phase = ""
        self.parts.pop()

    def visited(self, node: Node) -> None:
        """Charge what follows to the backward pass of the part that made a node."""
        number = node._sequence_nr()
        # a parameter's node has none: it stays where it is
        if self.phase and number <= self.begins[-1]:
            forward = self.names[bisect_right(self.begins, number) - 1]
            part = forward.removeprefix("G forward: ").removesuffix(" forward")
            self.parts[-1] = f"{self.phase} backward: {part}"

    def all(self) -> int:
        """Return all kernels."""
        return self.by_part.total()

    def by_operator(self) -> Counter[str]:
        """Return the kernels of each operator, of all parts."""
        found = Counter[str]()
        for (_, name), launched in self.operators.items():
            found[name] += launched
        return found

    def lstms(self) -> int:
        """Return those of LSTMs, which are modelled."""
        return self.by_part["LSTM forward"] + self.by_part["LSTM backward"]


def _on_cuda(value: Any) -> bool:
    """Tell whether any tensor of operator's arguments or results lies on CUDA."""
    if isinstance(value, Tensor):
        return value.device.type == CUDA.type
    return isinstance(value, list | tuple) and any(map(_on_cuda, value))


@contextmanager
def charged(step: TrainingStep, count: Launches) -> Iterator[None]:
    """Charge the calls of a step to their parts, until the block ends."""
    original = step.backward

    def backward(totals: Mapping[str, Tensor]) -> None:
        with count.backward("G" if "g" in totals else "D, DUR, WD"):
            original(totals)

    def within(name: str, call: Callable) -> Callable:
        def inner(*args: Any, **kwargs: Any) -> Any:
            with count.part(name):
                return call(*args, **kwargs)

        return inner

    with ExitStack() as stack:
        for owner, method, name in watched_calls(step):
            call = within(name, getattr(owner, method))
            stack.enter_context(patch.object(owner, method, call))
        stack.enter_context(patch.object(step, "backward", backward))
        yield


def make_once(step: TrainingStep, batch: TtsBatch) -> None:
    """Make what only the first step makes: moments, filters, and where joined weights begin.

    Args:
        step: a step that has not run.
        batch: micro-batch for it.
    """
    for name, optimizer in step.state.optimizers.items():
        for weight in step.state.trainable[name]:
            weight.grad = torch.empty_like(weight)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    with torch.no_grad():
        step.log_mel(batch.y.squeeze(1))
    with ExitStack() as stack:
        for net in step.bare.values():
            stack.enter_context(joined_weights(net))
    with fixed_weights(*(step.bare[name] for name in step.adversaries)):
        pass
    if isinstance(step, AsReferenceStep):
        for module in step.state.slm.modules():
            if isinstance(module, GatedAttention):
                separate_weights(module)


def count_step(
    train: TrainConfig,
    batch: TtsBatch,
    model: ModelConfig | None = None,
    data: DataConfig | None = None,
    kind: type[TrainingStep] = TrainingStep,
) -> Launches:
    """Return the kernels of a step.

    Args:
        train: hyper-parameters.
        batch: micro-batch on the CPU.
        model: sizes of the networks; None: the published ones.
        data: parameters of the STFT; None: the published ones.
        kind: our step, or another.
    """
    model = model or ModelConfig()
    data = data or DataConfig()
    count = Launches()
    with fake_gpu(count.visited, count.lstm):
        step = kind(fake_state(train, model, data), train, data)
        batches = [(0, fake_batch(batch))]
        make_once(step, batches[0][1])
        with count, charged(step, count):
            step(batches)
    return count


def measure(utterances: int, operators: bool = False) -> dict[str, Any]:
    """Return the kernels of all kinds of step with a batch of so many utterances."""
    batch = synthetic_batch(utterances, FRAMES, TOKENS, ModelConfig(), DataConfig())
    found: dict[str, Any] = {}
    kinds = (TrainConfig(precision="fp32"), ""), (TrainConfig(precision="bf16"), "bf16_")
    for train, prefix in kinds:
        ours = count_step(train, batch)
        theirs = count_step(train, batch, kind=AsReferenceStep)
        found |= {
            f"{prefix}launches": ours.all(),
            f"{prefix}launches_without_lstm": ours.all() - ours.lstms(),
            f"as_reference_{prefix}launches": theirs.all(),
            f"{prefix}by_part": dict(ours.by_part.most_common()),
            f"as_reference_{prefix}by_part": dict(theirs.by_part.most_common()),
            f"{prefix}lstm": ours.lstms(),
        }
        if operators:
            found[f"{prefix}by_operator"] = [
                [part, name, n] for (part, name), n in ours.operators.most_common()
            ]
    return found


def parts_table(result: Mapping[str, Any]) -> str:
    """Return the kernels by part as a table."""
    keys = ("by_part", "bf16_by_part", "as_reference_by_part")
    names = dict.fromkeys(name for key in keys for name in result[key])
    rows = [[name, *(str(result[key].get(name, 0)) for key in keys)] for name in names]
    rows.append(["all", *(str(sum(result[key].values())) for key in keys)])
    return table(["part", "fp32", "bf16", "as reference, fp32"], rows, align_right=True)


def main() -> None:
    """Run the command."""
    made = argparse.ArgumentParser(prog="python -m benchmarks.launches", description=__doc__)
    made.add_argument("--operators", action="store_true", help="write operators of parts, too")
    made.add_argument("--json", type=Path, help="write the figures")
    args = made.parse_args()
    by_batch = {str(n): measure(n, args.operators) for n in BATCHES}
    result = by_batch[str(BATCHES[0])] | {"by_batch": by_batch, "torch": torch.__version__}
    print(parts_table(result))
    single = {key: value for key, value in result.items() if isinstance(value, int | str)}
    print(json.dumps(single, indent=1))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()

"""Where a training step's seconds or floating-point operations go; what the machine could do."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial, wraps
from typing import Any
from unittest.mock import patch

from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from trainable.flops import CORRECTED
from trainable.learning.step import TrainingStep


class Parts:
    """Shares of a running total among named parts; an inner part's share is not the outer one's.

    Args:
        read: returns the running total: seconds, or operations.
    """

    def __init__(self, read: Callable[[], float]):
        self.read = read
        self.mark = read()
        self.names = ["other"]  # the parts that are open, the innermost last
        self.totals = defaultdict[str, float](float)

    def _charge(self) -> None:
        now = self.read()
        self.totals[self.names[-1]] += now - self.mark
        self.mark = now

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Charge what happens inside to a part."""
        self._charge()
        self.names.append(name)
        yield
        self._charge()
        self.names.pop()

    def watched(self, call: Callable, name: str) -> Callable:
        """Return the function with its calls charged to a part."""

        @wraps(call)
        def inner(*args: Any, **kwargs: Any) -> Any:
            with self.part(name):
                return call(*args, **kwargs)

        return inner


class KeptForBackward:
    """Counts the bytes that graphs keep for their backward passes, and the most at once.

    The networks' weights do not count. What a checkpointed part computes again counts while that
    part's backward pass needs it.

    Args:
        weights: weights of the networks.
    """

    def __init__(self, weights: Iterable[Tensor]):
        self.weights = {w.untyped_storage().data_ptr() for w in weights}
        self.holders: Counter[int] = Counter()  # storage -> graphs that hold it
        self.now = 0
        self.most = 0

    def watch(self) -> saved_tensors_hooks:
        """Return a context: what is saved inside counts until its graph releases it."""
        return saved_tensors_hooks(self._keep, lambda kept: kept[0])

    def _keep(self, tensor: Tensor) -> tuple[Tensor, "_Holder"]:
        storage = tensor.untyped_storage()
        key = storage.data_ptr()
        size = storage.nbytes()
        if key in self.weights:
            size = 0
        elif not self.holders[key]:
            self.now += size
            self.most = max(self.most, self.now)
        self.holders[key] += 1
        return tensor, _Holder(partial(self._let_go, key, size))

    def _let_go(self, key: int, size: int) -> None:
        self.holders[key] -= 1
        if not self.holders[key]:
            self.now -= size


class _Holder:
    """Calls a function when it is dropped."""

    def __init__(self, dropped: Callable[[], None]):
        self.dropped = dropped

    def __del__(self) -> None:
        self.dropped()


class PartedBackward:
    """Backward passes of the discriminators' losses one by one, each charged to its own part."""

    def __init__(self, parts: Parts, step: TrainingStep):
        self.parts = parts
        self.original = step.backward

    def __call__(self, totals: Mapping[str, Tensor]) -> None:
        """Run the backward passes; see `TrainingStep.backward`."""
        for name, total in totals.items():
            with self.parts.part("G backward" if name == "g" else f"{name.upper()} backward"):
                self.original({name: total})


@contextmanager
def in_parts(step: TrainingStep, read: Callable[[], float]) -> Iterator[dict[str, float]]:
    """Split what `read` counts while `step` runs; the dictionary is filled at the end."""
    parts = Parts(read)
    shares = dict[str, float]()
    with ExitStack() as stack:
        for owner, method, name in watched_calls(step):
            call = parts.watched(getattr(owner, method), name)
            stack.enter_context(patch.object(owner, method, call))
        stack.enter_context(patch.object(step, "backward", PartedBackward(parts, step)))
        with parts.part("other"):
            yield shares
    shares |= {name: total for name, total in parts.totals.items() if total}


def called(module: Any) -> str:
    """Return the attribute of a module that each call goes through, outside what is compiled."""
    return "forward" if module._compiled_call_impl is None else "_compiled_call_impl"


def watched_calls(step: TrainingStep) -> list[tuple[Any, str, str]]:
    """Return owner, method and part of each call that is charged."""
    nets = step.state.nets
    g = nets["g"]
    watched: list[tuple[Any, str, str]] = [
        (getattr(g, name), called(getattr(g, name)), f"G forward: {name}")
        for name in ("enc_p", "enc_q", "flow", "sdp", "dp", "dec")
    ]
    if "dur" in nets:
        watched.append((nets["dur"], "judge", "DUR forward"))
    return [
        *watched,
        (nets["d"], "discriminate", "D forward"),
        (nets["wd"], "forward", "WD forward"),
        (g, "forward", "G forward: rest"),
        (g.search, "align", "alignment"),
        (step.state.slm, "forward", "WavLM forward"),
        (step, "real_segment", "real segment"),
        (step, "generator_losses", "generator's losses"),
        (step, "update", "optimizers"),
        (step, "gathered_report", "report"),
    ]


class FlopCount:
    """Counts floating-point operations, a multiply-add as two, while it is entered.

    Attributes:
        torch: count by torch.utils.flop_counter, whose formulas take the weight gradient of a
            grouped convolution for one without groups, and leave out LSTMs; the reference's figures
            were counted in this way.
        corrected: count with both corrected.
    """

    def __init__(self) -> None:
        self.torch = FlopCounterMode(display=False)
        self.corrected = FlopCounterMode(display=False, custom_mapping=CORRECTED)

    def __enter__(self) -> "FlopCount":
        self.torch.__enter__()
        self.corrected.__enter__()
        return self

    def __exit__(self, *args: object) -> None:
        self.corrected.__exit__(*args)
        self.torch.__exit__(*args)

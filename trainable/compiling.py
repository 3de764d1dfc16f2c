"""torch.compile for the parts of the networks where it pays: `train.compile`.

A part is compiled in place, so its parameters keep their names, and copies of it are not compiled.
Inside, layers take their plain form, of torch's operators (`kernels.support.joined`): the compiler
joins these, and does not see into operators of ours.
"""

import contextlib
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, cast

import torch
from torch import nn

from trainable.config import TrainConfig
from trainable.networks.generator.flows import CouplingLayer
from trainable.networks.kernels.support import has_triton
from trainable.networks.registry import GENERATOR

BACKEND: Any = "inductor"  # torch.compile's; tests and small benchmarks take a quicker one
# Graphs that instances of a class may have together, beyond which torch goes on without compiling.
# Five period discriminators share one forward, each with a graph for its own gradients, one for the
# generator's, and one for recordings, and these for one utterance and for many.
GRAPHS = 64


class Part(NamedTuple):
    """A module that is compiled.

    Attributes:
        module: the module, whose calls are compiled.
        dynamic: torch.compile's `dynamic`: True where lengths vary from one micro-batch to the
            next; None where only the number of utterances does: the compiler finds out, and takes
            all other sizes for constants.
    """

    module: nn.Module
    dynamic: bool | None


def parts(nets: Mapping[str, nn.Module]) -> dict[str, Part]:
    """Return the parts that are compiled, by name.

    docs/performance.md says why these.

    Args:
        nets: name -> network, without wrapper.
    """
    g, d = (cast(Any, nets[name]) for name in (GENERATOR, "d"))
    found = {"g.enc_p.encoder": Part(g.enc_p.encoder, True), "g.enc_q": Part(g.enc_q, True)}
    found |= {
        f"g.flow.flows.{i}": Part(flow, True)
        for i, flow in enumerate(g.flow.flows)
        if isinstance(flow, CouplingLayer)
    }
    found["g.dec"] = Part(g.dec, None)
    return found | {
        f"d.discriminators.{i}": Part(each, None) for i, each in enumerate(d.discriminators)
    }


def compile_parts(nets: Mapping[str, nn.Module]) -> None:
    """Compile the parts, each at its first call.

    Args:
        nets: name -> network, without wrapper.
    """
    import torch._dynamo  # takes seconds

    torch._dynamo.config.recompile_limit = GRAPHS
    # DDP's buckets are filled part by part all the same; else each part would be cut at their ends
    torch._dynamo.config.optimize_ddp = False
    for part in parts(nets).values():
        part.module.compile(backend=BACKEND, dynamic=part.dynamic)


@contextlib.contextmanager
def not_compiled(train: TrainConfig) -> Iterator[None]:
    """Call compiled parts as they are, until the block ends: for what is not a training step."""
    if train.compile == "off":
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


def compiler_trouble(train: TrainConfig, gpu: bool) -> str:
    """Return why this machine cannot compile what `train.compile` asks for; "" if it can.

    Args:
        train: `compile`.
        gpu: whether the networks lie on a GPU.
    """
    if train.compile == "off":
        return ""
    if gpu and not has_triton():
        return (
            "train.compile parts needs Triton on a GPU, and it is not installed: install torch as "
            "locked, or set train.compile off"
        )
    # inductor's own rule for CPUs; Triton, which compiles its launchers, also takes gcc and clang
    default = "clang++" if sys.platform == "darwin" else "g++"
    named = os.environ.get("CC" if gpu else "CXX")
    known = (named,) if named else ("gcc", "clang") if gpu else (default,)
    if any(map(shutil.which, known)):
        return ""
    return (
        f"train.compile parts needs a compiler, and there is no {' or '.join(known)} on the path: "
        "install one, or set train.compile off"
    )

"""train.compile: whole graphs, few of them, and the same losses."""

import copy
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch._dynamo.backends.registry import lookup_backend
from torch._dynamo.utils import counters
from torch._inductor import config as inductor_config
from torch.nn.parallel import DistributedDataParallel
from torch.utils._pytree import tree_leaves, tree_map_only

from job.settings.checks import check
from tests.tiny import tiny_batch, tiny_config, tiny_state
from trainable import compiling
from trainable.compiling import compiler_trouble, parts
from trainable.config import TrainConfig
from trainable.distributed.wrapping import ddp_settings, unwrapped
from trainable.learning.optimizer import grad_norm
from trainable.learning.step import TrainingStep
from trainable.networks.discriminators import period
from trainable.networks.generator import synthesizer
from trainable.networks.kernels import support
from trainable.networks.layers import attentions

G = 2
# utterances, phones and frames of the micro-batches of steps; from the fourth step on nothing is
# seen of which a graph could be new
SHAPES = [
    [(2, 21, 40), (3, 25, 48)],
    [(4, 29, 56), (2, 21, 64)],
    [(1, 21, 40), (1, 25, 48)],
    [(5, 33, 72), (3, 37, 80)],
    [(1, 29, 56), (4, 25, 88)],
]
WARM = 3


@pytest.fixture
def small(monkeypatch):
    """Each part with few layers: a graph takes as long as the operators that it has."""
    monkeypatch.setitem(synthesizer.POSTERIOR, "n_layers", 2)
    monkeypatch.setattr(period, "PERIODS", (2, 5))
    monkeypatch.setattr(attentions, "COND_LAYER", 0)  # where the speaker enters: the only layer
    made = attentions.Encoder.__init__

    def with_one_layer(self: Any, width: int, inner: int, heads: int, _: int, *args: Any) -> None:
        made(self, width, inner, heads, 1, *args)

    monkeypatch.setattr(attentions.Encoder, "__init__", with_one_layer)
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def config(**train: Any):
    cfg = tiny_config(micro_batches_per_step=G, **train)
    sizes: dict[str, Any] = {
        "p_dropout": 0.0,  # a compiled part draws other masks
        "n_flow_layer": 2,
        "resblock_kernel_sizes": (3,),
        "resblock_dilation_sizes": ((1, 3),),
        "upsample_rates": (8, 8, 8),
        "upsample_kernel_sizes": (16, 16, 16),
    }
    return replace(cfg, model=replace(cfg.model, **sizes))


class Graphs:
    """A backend that counts the graphs of each part."""

    def __init__(self, backend: str):
        self.backend = lookup_backend(backend)
        self.part = ""
        self.found: Counter[str] = Counter()

    def __call__(self, graph: Any, inputs: Any) -> Any:
        self.found[self.part] += 1
        return self.backend(graph, inputs)

    def watch(self, nets: Any) -> None:
        """Note which part is called."""
        for name, (module, _) in parts(nets).items():

            def called(*args: Any, call=module._compiled_call_impl, name=name, **kwargs: Any):
                self.part = name
                return call(*args, **kwargs)

            module._compiled_call_impl = called


class Kept(TrainingStep):
    """A step that keeps the gradients by parameter, and the weights: updates amplify rounding."""

    def update(self, name: str) -> torch.Tensor:
        self.state.reduction.finish(name)
        norm = grad_norm(self.state.trainable[name])
        for key, parameter in self.bare[name].named_parameters():
            self.gradients[f"{name}.{key}"] = parameter.grad.clone()
            parameter.grad = None
        return norm


def steps(cfg, graphs: Graphs | None = None) -> tuple[list[dict], dict, list[Counter]]:
    """Losses and gradient norms of the steps, the last's gradients, the graphs after each step."""
    state = tiny_state(cfg)
    if dist.is_initialized():
        settings = ddp_settings(cfg.train)
        wrapped = {n: DistributedDataParallel(net, **settings) for n, net in state.nets.items()}
        state = replace(state, nets=wrapped)
    if graphs:
        graphs.watch({name: unwrapped(net) for name, net in state.nets.items()})
    step = Kept(state, cfg.train, cfg.data)
    found, seen = [], []
    for i, shapes in enumerate(SHAPES):
        step.gradients = {}
        batches = [
            (j, tiny_batch(cfg, 10 * i + j, utterances, phones, frames))
            for j, (utterances, phones, frames) in enumerate(shapes)
        ]
        found.append({tag: value.item() for tag, value in step(batches).scalars.items()})
        seen.append(Counter(graphs.found) if graphs else Counter())
    return found, step.gradients, seen


@pytest.fixture(params=["one CPU", "checkpointing", "as on GPUs"])
def changes(request, monkeypatch):
    """Keys of train; and what GPUs would change."""
    if request.param == "checkpointing":
        return {"activation_checkpointing": True}
    if request.param == "as on GPUs":
        # normalised weights are computed together, outside what is compiled; groups as products
        monkeypatch.setattr(support, "joined", lambda x: not torch.compiler.is_compiling())
        monkeypatch.setattr(support, "on_gpu", lambda x: True)
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        request.addfinalizer(dist.destroy_process_group)
    return {}


@pytest.mark.slow
def test_whole_graphs_and_few_and_the_same_losses(small, changes, monkeypatch):
    counters.clear()
    graphs = Graphs("aot_eager")
    monkeypatch.setattr(compiling, "BACKEND", graphs)
    found, gradients, seen = steps(config(compile="parts", **changes), graphs)

    assert not counters["graph_break"]
    assert max(graphs.found.values()) <= 8
    assert seen[WARM - 1] == seen[-1]

    expected, of_eager, _ = steps(config(**changes))
    for own, other in zip(found, expected, strict=True):
        assert own == pytest.approx(other, rel=1e-3, abs=1e-5, nan_ok=True)
    assert gradients.keys() == of_eager.keys()
    for name, gradient in gradients.items():
        error = (gradient - of_eager[name]).norm()
        assert error <= 1e-2 * of_eager[name].norm() + 1e-3, name


# one of each kind
KINDS = (
    "g.enc_p.encoder",
    "g.enc_q",
    "g.flow.flows.0",
    "g.dec",
    "d.discriminators.0",
    "d.discriminators.2",
)


@pytest.mark.processes  # the compiler
@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_values_of_a_compiled_part(small, name):
    cfg = config()
    state = tiny_state(cfg)
    module, dynamic = parts(state.nets)[name]
    given: list[Any] = []
    handle = module.register_forward_pre_hook(
        lambda _, args, kwargs: given.append((args, kwargs)), with_kwargs=True
    )
    TrainingStep(state, cfg.train, cfg.data)([(0, tiny_batch(cfg, 0)), (1, tiny_batch(cfg, 1))])
    handle.remove()
    args, kwargs = given[0]

    def found() -> list[torch.Tensor]:
        torch.manual_seed(0)
        own, named = (tree_map_only(torch.Tensor, leaf, each) for each in (args, kwargs))
        out = [x for x in tree_leaves(module(*own, **named)) if x.requires_grad]
        torch.autograd.backward([x.square().sum() for x in out])
        inputs = [x for x in tree_leaves((own, named)) if isinstance(x, torch.Tensor)]
        gradients = [x.grad for x in [*inputs, *module.parameters()] if x.requires_grad]
        module.zero_grad()
        return [x for x in [*out, *gradients] if x is not None]

    eager = found()
    module.compile(dynamic=dynamic)
    with inductor_config.patch(fallback_random=True):  # the draws of eager
        compiled = found()
    assert len(eager) == len(compiled) > 3
    for own, other in zip(compiled, eager, strict=True):
        torch.testing.assert_close(
            own, other, rtol=1e-3, atol=1e-4 * float(other.detach().abs().max()) + 1e-6
        )


def leaf(x: torch.Tensor) -> torch.Tensor:
    return x.detach().clone().requires_grad_(x.is_floating_point() and x.requires_grad)


@pytest.mark.medium
def test_names_and_copies():
    off, on = (tiny_state(tiny_config(compile=each)).nets for each in ("off", "parts"))
    for name, net in on.items():
        assert list(net.state_dict()) == list(off[name].state_dict())
    for module, _ in parts(on).values():
        assert module._compiled_call_impl is not None
        assert copy.deepcopy(module)._compiled_call_impl is None
    assert all(module._compiled_call_impl is None for module, _ in parts(off).values())


def test_exact_sums_are_refused():
    cfg = tiny_config(reduction="exact", compile="parts")
    with pytest.raises(ValueError, match=r"train\.reduction exact .* train\.compile parts"):
        check(cfg)


@pytest.mark.parametrize(
    ("gpu", "environment", "found", "told"),
    [
        (False, {}, ["g++"], ""),
        (False, {}, [], "no g++ on the path"),
        (False, {"CXX": "icpx"}, ["g++"], "no icpx on the path"),
        (True, {}, ["clang"], ""),
        (True, {}, [], "no gcc or clang on the path"),
        (True, {"CC": "cc"}, ["cc"], ""),
    ],
)
def test_a_machine_without_a_compiler_is_told(monkeypatch, gpu, environment, found, told):
    for name in ("CC", "CXX"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(compiling.sys, "platform", "linux")
    monkeypatch.setattr(compiling, "has_triton", lambda: True)
    monkeypatch.setattr(compiling.shutil, "which", lambda name: name if name in found else None)
    trouble = compiler_trouble(TrainConfig(compile="parts"), gpu)
    assert told in trouble and bool(told) == bool(trouble)
    assert compiler_trouble(TrainConfig(), gpu) == ""


def test_a_gpu_without_triton_is_told(monkeypatch):
    monkeypatch.setattr(compiling, "has_triton", lambda: False)
    assert "needs Triton" in compiler_trouble(TrainConfig(compile="parts"), gpu=True)

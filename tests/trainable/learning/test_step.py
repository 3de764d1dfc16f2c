"""The training step: what it computes, how often, and that the number of workers is no matter."""

import copy
import functools
import hashlib
import os
import socket
from collections import Counter
from collections.abc import Callable
from dataclasses import fields, replace
from datetime import timedelta
from functools import partial

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils._python_dispatch import TorchDispatchMode

from data.plan.costs import shares
from data.plan.epoch_plan import Position
from job.settings.config import Config
from tests.processes import run_in_processes
from tests.reference.rule import fill
from tests.tiny import tiny_batch, tiny_config, tiny_state
from trainable.config import LearningRates, LossRamp, LossWeights, TrainConfig
from trainable.distributed.wrapping import ddp_settings, same_weights, sending
from trainable.learning.optimizer import learning_rate
from trainable.learning.step import TrainingStep
from trainable.networks.layers.modules import Dropout

G = 4
# of each step's micro-batches: workers share the first step in turn, the second otherwise
COSTS = ([1.0] * G, [1.0, 5.0, 2.0, 3.0])
STEPS = 2  # the second meets moments and parameters that the first has made


def train(cfg, rank: int, world_size: int) -> dict:
    """STEPS global steps of this worker; losses, norms, and a digest of all that is trained."""
    torch.set_num_threads(1)
    state = tiny_state(cfg)
    if world_size > 1:
        state = replace(state, nets=wrapped_as_workers_do(cfg.train, state.nets))
    step, trace = TrainingStep(state, cfg.train, cfg.data), []
    for i in range(STEPS):
        own = [
            (j, tiny_batch(cfg, 10 * i + j, utterances=2 + j % 2))
            for j in shares(COSTS[i], world_size)[rank]
        ]
        trace.append({tag: value.item() for tag, value in step(own).scalars.items()})
        state.position = Position(i + 1, 0, i + 1)
    return {"trace": trace, "digest": digest(state)}


def wrapped_as_workers_do(train: TrainConfig, nets: dict[str, nn.Module]) -> dict[str, nn.Module]:
    if train.reduction == "exact":
        return {name: same_weights(net) for name, net in nets.items()}
    settings = ddp_settings(train)
    wrapped = {name: DistributedDataParallel(net, **settings) for name, net in nets.items()}
    return {name: sending(net, train) for name, net in wrapped.items()}


def digest(state) -> str:
    tensors = [t for name in sorted(state.nets) for t in state.nets[name].state_dict().values()]
    tensors += [t for o in state.optimizers.values() for s in o.state.values() for t in s.values()]
    return hashlib.sha256(b"".join(t.detach().numpy().tobytes() for t in tensors)).hexdigest()


def worker(rank: int, world_size: int, port: int, work, cfg, box: str) -> None:
    os.environ.update(OMP_NUM_THREADS="1")
    dist.init_process_group(
        "gloo",
        f"tcp://127.0.0.1:{port}",
        rank=rank,
        world_size=world_size,
        timeout=timedelta(seconds=60),
    )
    torch.save(work(cfg, rank, world_size), f"{box}/{rank}.pt")
    dist.destroy_process_group()


def spread_of(work, cfg, world_size: int, tmp_path) -> list:
    """What `work(cfg, rank, world_size)` returns in each process of a group."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    run_in_processes(worker, world_size, port, work, cfg, str(tmp_path), count=world_size)
    return [torch.load(tmp_path / f"{r}.pt") for r in range(world_size)]


def with_spectral_norm(**train_):
    cfg = tiny_config(reduction="fast", **train_)
    return replace(cfg, model=replace(cfg.model, use_spectral_norm=True))


def joining(reduction: str) -> Config:
    """Discriminators take part from the second step on."""
    ramp = LossRamp(steps=4, kl=0.1)
    return tiny_config(
        reduction=reduction, micro_batches_per_step=G, adversarial_from_step=1, loss_ramp=ramp
    )


EXACT, FAST = (tiny_config(reduction=name, micro_batches_per_step=G) for name in ("exact", "fast"))
BF16 = replace(FAST, train=replace(FAST.train, ddp_gradients="bf16"))
SPECTRAL = with_spectral_norm(micro_batches_per_step=G)
# number of workers -> what they train, one after the other
TRAINED = {
    2: {
        "exact": EXACT,
        "fp32": FAST,
        "joining exact": joining("exact"),
        "joining fast": joining("fast"),
    },
    3: {"exact": EXACT, "fp32": FAST, "bf16": BF16, "spectral": SPECTRAL},
    4: {"exact": EXACT},
}


def train_each(cfgs: dict[str, Config], rank: int, world_size: int) -> dict[str, dict]:
    return {name: train(cfg, rank, world_size) for name, cfg in cfgs.items()}


@pytest.fixture(scope="module")
def spread(tmp_path_factory) -> Callable[[int, str], list[dict]]:
    """What each of a number of workers has trained, by its name in TRAINED; each group is one."""

    @functools.cache
    def groups(world_size: int) -> list[dict[str, dict]]:
        folder = tmp_path_factory.mktemp("group")
        return spread_of(train_each, TRAINED[world_size], world_size, folder)

    return lambda world_size, name: [results[name] for results in groups(world_size)]


@pytest.fixture(scope="module")
def alone() -> dict[str, dict]:
    threads = torch.get_num_threads()
    results = {
        "fast": train(FAST, 0, 1),
        "exact": train(EXACT, 0, 1),
    }
    torch.set_num_threads(threads)
    return results


@pytest.mark.processes
@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_exact_gives_the_same_bits_for_any_number_of_workers(world_size, alone, spread):
    results = spread(world_size, "exact")
    assert {r["digest"] for r in results} == {alone["exact"]["digest"]}
    for result in results:
        assert [{k: str(v) for k, v in line.items()} for line in result["trace"]] == [
            {k: str(v) for k, v in line.items()} for line in alone["exact"]["trace"]
        ]


@pytest.mark.processes
@pytest.mark.parametrize(
    ("world_size", "gradients", "within"), [(2, "fp32", 1e-5), (3, "fp32", 1e-5), (3, "bf16", 2e-2)]
)
def test_fast_agrees_to_rounding_and_keeps_the_workers_equal(
    world_size, gradients, within, alone, spread
):
    results = spread(world_size, gradients)
    assert len({r["digest"] for r in results}) == 1
    first, expected = results[0]["trace"][0], alone["fast"]["trace"][0]
    for tag, value in expected.items():
        assert first[tag] == pytest.approx(value, rel=within, nan_ok=True), tag
    norms = [tag for tag in expected if tag.startswith("grad_norm")]
    rounded = any(abs(first[tag] / expected[tag] - 1) > 1e-5 for tag in norms)
    assert rounded == (gradients == "bf16")


@pytest.mark.processes
def test_spectral_norm_keeps_workers_of_unequal_shares_equal(spread):
    """Its buffers change with every forward pass, and three workers have 2, 1 and 1 of these."""
    results = spread(3, "spectral")
    assert len({r["digest"] for r in results}) == 1


@pytest.mark.medium
@pytest.mark.parametrize("micro_batches", [1, 2])
def test_spectral_norm_gives_the_same_bits_with_activation_checkpointing(micro_batches):
    found = []
    for checkpointing in (False, True):
        cfg = with_spectral_norm(
            activation_checkpointing=checkpointing, micro_batches_per_step=micro_batches
        )
        state = tiny_state(cfg)
        step = TrainingStep(state, cfg.train, cfg.data)
        batches = [(i, tiny_batch(cfg, i)) for i in range(micro_batches)]
        norms = [step(batches).scalars["grad_norm_d"].item() for _ in range(2)]
        found.append((norms, digest(state)))
    assert found[0] == found[1]


def test_spectral_norm_is_never_in_the_discriminator_on_wavlm():
    """The reference's files of that network have weight norm, whatever the switch says."""
    plain, spectral = (tiny_state(cfg).nets for cfg in (tiny_config(), with_spectral_norm()))
    assert plain["wd"].state_dict().keys() == spectral["wd"].state_dict().keys()
    assert any(key.endswith("weight_u") for key in spectral["d"].state_dict())


def test_exact_and_fast_compute_the_same_mean(alone):
    for tag, value in alone["fast"]["trace"][0].items():
        assert alone["exact"]["trace"][0][tag] == pytest.approx(value, rel=1e-6, nan_ok=True), tag


@pytest.mark.medium
def test_one_micro_batch_keeps_its_graph_and_gives_the_same_bits_as_recomputing():
    """The generator's phase must not depend on whether its forward pass was kept or run again."""
    cfg = tiny_config(reduction="exact", micro_batches_per_step=1)
    kept, again = tiny_state(cfg), tiny_state(cfg)
    again.reduction.keeps_graph = False
    for state, forwards in ((kept, 1), (again, 2)):
        calls = []
        state.nets["g"].register_forward_hook(lambda *_, calls=calls: calls.append(1))
        TrainingStep(state, cfg.train, cfg.data)([(0, tiny_batch(cfg, 0))])
        assert len(calls) == forwards
    assert digest(kept) == digest(again)


@pytest.mark.medium
@pytest.mark.parametrize("reduction", ["fast", "exact"])
@pytest.mark.parametrize("micro_batches", [1, 2])
def test_activation_checkpointing_keeps_less_and_gives_the_same_bits(micro_batches, reduction):
    found = []
    for checkpointing in (False, True):
        cfg = tiny_config(
            activation_checkpointing=checkpointing,
            reduction=reduction,
            micro_batches_per_step=micro_batches,
        )
        state, kept = tiny_state(cfg), {}

        def keep(tensor: torch.Tensor, kept=kept) -> torch.Tensor:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        step = TrainingStep(state, cfg.train, cfg.data)
        batches = [(i, tiny_batch(cfg, i)) for i in range(micro_batches)]
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            reports = [step(batches) for _ in range(2)]
        found.append((digest(state), [str(r.scalars) for r in reports], sum(kept.values())))
    assert found[0][:2] == found[1][:2]
    assert found[1][2] < 0.8 * found[0][2]


@pytest.mark.medium
@pytest.mark.parametrize("reduction", ["fast", "exact"])
@pytest.mark.parametrize("micro_batches", [1, 3])
def test_wavlm_hears_each_sound_once(micro_batches, reduction):
    """Once on real audio, without a graph, and once on generated audio a micro-batch.

    With several, twice on generated audio: the generator's phase builds its graph again, WavLM's
    with it, as the graphs of all micro-batches together would not fit the memory. Real audio's
    features have none, and are kept.
    """
    cfg = tiny_config(micro_batches_per_step=micro_batches, reduction=reduction)
    state = tiny_state(cfg)
    forwards = []
    state.slm.wavlm.register_forward_hook(lambda *_: forwards.append(torch.is_grad_enabled()))
    TrainingStep(state, cfg.train, cfg.data)(
        [(i, tiny_batch(cfg, i)) for i in range(micro_batches)]
    )
    assert forwards.count(False) == micro_batches
    assert forwards.count(True) == (1 if micro_batches == 1 else 2 * micro_batches)


class WeightGradients(TorchDispatchMode):
    """Counts convolutions' backward passes through networks, in the phase at hand.

    With and without gradients of their weights.
    """

    def __init__(self, nets: list[nn.Module]):
        super().__init__()
        self.depth, self.weights, self.phase = 0, {}, "discriminators"
        self.computed, self.passed, self.accumulated = Counter(), Counter(), Counter()
        for module in (module for net in nets for module in net.modules()):
            module.register_forward_pre_hook(lambda *_: self.enter(1))
            module.register_forward_hook(lambda *_: self.enter(-1))
        for parameter in (parameter for net in nets for parameter in net.parameters()):
            parameter.register_post_accumulate_grad_hook(
                lambda _: self.accumulated.update([self.phase])
            )

    def enter(self, step: int) -> None:
        self.depth += step

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name
        if name == "aten::convolution" and self.depth:
            # kept, so that no other tensor comes to lie there
            self.weights[args[1].data_ptr()] = args[1]
        if name == "aten::convolution_backward" and args[2].data_ptr() in self.weights:
            of_input, of_weight, _ = args[-1]
            self.computed[self.phase] += of_weight
            self.passed[self.phase] += of_input
        return func(*args, **(kwargs or {}))


@pytest.mark.medium
@pytest.mark.parametrize("micro_batches", [1, 2])
def test_the_generators_phase_computes_no_gradient_of_a_discriminators_weight(
    micro_batches, monkeypatch
):
    cfg = tiny_config(micro_batches_per_step=micro_batches)
    state = tiny_state(cfg)
    watch = WeightGradients([net for name, net in state.nets.items() if name != "g"])
    original = TrainingStep.generator_losses

    def generator_losses(self, real, generated):
        watch.phase = "generator"
        return original(self, real, generated)

    monkeypatch.setattr(TrainingStep, "generator_losses", generator_losses)
    with watch:
        TrainingStep(state, cfg.train, cfg.data)(
            [(i, tiny_batch(cfg, i)) for i in range(micro_batches)]
        )
    assert watch.computed["discriminators"] > 0
    assert watch.accumulated["discriminators"] > 0
    assert watch.passed["generator"] > 0  # the gradient goes through them to the waveform
    assert watch.computed["generator"] == 0
    assert watch.accumulated["generator"] == 0


@pytest.mark.medium
def test_gradients_are_clipped_where_asked():
    cfg = tiny_config(micro_batches_per_step=1)
    cfg = replace(cfg, train=replace(cfg.train, clip_norm=replace(cfg.train.clip_norm, g=0.5)))
    state = tiny_state(cfg)
    report = TrainingStep(state, cfg.train, cfg.data)([(0, tiny_batch(cfg, 0))])
    assert report.scalars["grad_norm_g"].item() > 1
    applied = torch.nn.utils.get_total_norm(
        [of["exp_avg"] for of in state.optimizers["g"].state.values()]
    )
    assert applied.item() == pytest.approx((1 - cfg.train.betas[0]) * 0.5, rel=1e-3)
    assert cfg.train.clip_norm.limit("d", "bf16") == 200
    assert cfg.train.clip_norm.limit("d", "fp32") is None


@pytest.mark.medium
def test_without_the_duration_discriminator_its_losses_are_absent():
    cfg = tiny_config(micro_batches_per_step=1)
    cfg = replace(cfg, model=replace(cfg.model, use_duration_discriminator=False))
    report = TrainingStep(tiny_state(cfg), cfg.train, cfg.data)([(0, tiny_batch(cfg, 0))])
    assert not [tag for tag in report.scalars if "dur_" in tag]


def first_losses(precision: str) -> dict[str, float]:
    """Losses of a first step from weights of ordinary size.

    An untrained decoder is all but silent in most bands: there its log mel would measure the
    rounding.
    """
    cfg = tiny_config(micro_batches_per_step=1, precision=precision)
    state = tiny_state(cfg)
    for net in state.nets.values():
        fill(net, salt="")
    # fp16's first scale is meant to overflow, and would leave the discriminators as they were
    scaler = partial(torch.amp.GradScaler, "cpu", init_scale=1.0, enabled=precision == "fp16")
    state.scalers = {name: scaler() for name in state.nets}
    report = TrainingStep(state, cfg.train, cfg.data)([(0, tiny_batch(cfg, 0))])
    return {tag: value.item() for tag, value in report.scalars.items() if tag.startswith("loss/")}


@pytest.mark.medium
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_lower_precision_stays_near_fp32(precision):
    full, low = first_losses("fp32"), first_losses(precision)
    for tag, value in full.items():
        # judgements near 0 of single networks are lost in the rounding, but not in the sums
        assert low[tag] == pytest.approx(value, rel=0.02, abs=1e-3, nan_ok=True), tag


@pytest.mark.medium
def test_random_draws_are_the_same_under_every_precision(monkeypatch):
    """Noise drawn in half precision would be other noise; masks of dropout are the same in all."""
    draws: list[torch.Tensor] = []

    def noted(draw, *args, **kwargs):
        draws.append(draw(*args, **kwargs))
        return draws[-1]

    def mask(dropout, x):
        noted(F.dropout, torch.ones_like(x), dropout.p)
        draws[-1] = draws[-1] > 0
        return x

    for name in ("randn", "randn_like", "rand"):
        monkeypatch.setattr(torch, name, partial(noted, getattr(torch, name)))
    monkeypatch.setattr(Dropout, "forward", mask)
    taken = {}
    for precision in ("fp32", "bf16", "fp16"):
        cfg = tiny_config(micro_batches_per_step=1, precision=precision)
        step, batch = TrainingStep(tiny_state(cfg), cfg.train, cfg.data), tiny_batch(cfg, 0)
        draws.clear()
        step([(0, batch)])
        taken[precision] = list(draws)
    assert len(taken["fp32"]) > 5 + 20  # the generator's noise, and dropout
    for precision in ("bf16", "fp16"):
        assert all(map(torch.equal, taken["fp32"], taken[precision]))
        assert len(taken["fp32"]) == len(taken[precision])


@pytest.mark.medium
def test_exact_shows_what_is_not_finite_instead_of_wrapping():
    cfg = tiny_config(reduction="exact", micro_batches_per_step=1)
    state = tiny_state(cfg)
    batch = tiny_batch(cfg, 0)
    batch.y[:], batch.spec[:] = float("nan"), float("nan")
    report = TrainingStep(state, cfg.train, cfg.data)([(0, batch)])
    assert not all(torch.isfinite(report.scalars[t]) for t in ("loss/g/total", "loss/d/total"))
    assert all(report.scalars[f"grad_norm_{name}"].isnan() for name in ("g", "d", "wd"))
    assert report.broken.tolist() == [True]


def test_learning_rate_is_a_function_of_the_position():
    cfg = tiny_config(learning_rate=1e-3, lr_decay=0.5, warmup_steps=10).train
    assert learning_rate(cfg, Position(4, 0, 4)) == pytest.approx(1e-3 * 0.5)
    assert learning_rate(cfg, Position(99, 2, 0)) == pytest.approx(1e-3 * 0.25)
    by_step = replace(cfg, lr_decay_by="step", warmup_steps=0)
    assert learning_rate(by_step, Position(3, 7, 0)) == pytest.approx(1e-3 * 0.125)


def test_a_network_may_have_a_learning_rate_of_its_own():
    cfg = tiny_config(
        learning_rate=1e-3, lr_decay=1.0, learning_rates=LearningRates(d=5e-4, wd=1e-5)
    )
    state = tiny_state(cfg)
    state.base_rates = {"g": 7e-4, "d": 9e-4}  # of published weights
    state.prepare_step()
    rates = {name: optimizer.param_groups[0]["lr"] for name, optimizer in state.optimizers.items()}
    assert rates == {"g": 7e-4, "d": 5e-4, "dur": 1e-3, "wd": 1e-5}


@pytest.mark.processes
@pytest.mark.parametrize("reduction", ["fast", "exact"])
def test_workers_stay_equal_when_discriminators_join(reduction, spread):
    """The second step is the first with discriminators; exact has the bits of a single worker."""
    together = {result["digest"] for result in spread(2, f"joining {reduction}")}
    assert len(together) == 1
    if reduction == "exact":
        threads = torch.get_num_threads()
        assert together == {train(joining("exact"), 0, 1)["digest"]}
        torch.set_num_threads(threads)


@pytest.mark.medium
@pytest.mark.parametrize("reduction", ["fast", "exact"])
def test_the_discriminators_take_part_from_their_step_on(reduction):
    cfg = tiny_config(reduction=reduction, micro_batches_per_step=1, adversarial_from_step=1)
    state = tiny_state(cfg)
    step = TrainingStep(state, cfg.train, cfg.data)
    weights = {name: digest_of(net) for name, net in state.nets.items()}

    alone = step([(0, tiny_batch(cfg, 0))])
    changed = {name for name, net in state.nets.items() if digest_of(net) != weights[name]}
    assert changed == {"g"}
    there = [tag for tag, present in zip(step.tags, alone.present.tolist(), strict=True) if present]
    assert there == ["loss/g/total", "loss/g/mel", "loss/g/dur", "loss/g/kl", "loss/g/lm"]
    total = sum(alone.scalars[tag] for tag in there[1:])
    assert float(alone.scalars["loss/g/total"]) == pytest.approx(float(total))
    assert [float(alone.scalars[f"grad_norm_{name}"]) for name in ("d", "dur", "wd")] == [0, 0, 0]
    assert not alone.broken.any()

    state.position = Position(1, 0, 1)
    resumed = resumed_from(state, cfg)
    together = step([(0, tiny_batch(cfg, 1))])
    TrainingStep(resumed, cfg.train, cfg.data)([(0, tiny_batch(cfg, 1))])
    assert resumed.digest() == state.digest()
    there = [
        tag for tag, present in zip(step.tags, together.present.tolist(), strict=True) if present
    ]
    assert {"loss/d/total", "loss/g/fm", "loss/g/dur_gen", "loss/g/lm_gen"} < set(there)
    assert all(digest_of(net) != weights[name] for name, net in state.nets.items())


def resumed_from(state, cfg):
    """A new state that has loaded all of another one."""
    new = tiny_state(cfg)
    for name, net in new.nets.items():
        net.load_state_dict(state.nets[name].state_dict())
    new.load_state_dict(copy.deepcopy(state.state_dict()))
    new.position = state.position
    return new


def digest_of(net: nn.Module) -> str:
    return hashlib.sha256(
        b"".join(p.detach().numpy().tobytes() for p in net.parameters())
    ).hexdigest()


@pytest.mark.medium
def test_a_weight_may_begin_at_a_fraction():
    """Over 4 steps a factor of 1/16 becomes 1, each step twice that of the step before."""
    one = {"micro_batches_per_step": 1, "adversarial_from_step": 10}  # the generator's terms
    cfg = tiny_config(**one, loss_ramp=LossRamp(steps=4, kl=1 / 16))
    plain = tiny_config(**one)
    for step, factor in ((0, 1 / 16), (1, 1 / 8), (3, 1 / 2), (4, 1.0), (9, 1.0)):
        told = []
        for each in (cfg, plain):
            state = tiny_state(each)
            state.position = Position(step, 0, step)
            told.append(TrainingStep(state, each.train, each.data)([(0, tiny_batch(cfg, 0))]))
        ramped, usual = (report.scalars for report in told)
        assert float(ramped["loss/g/kl"]) == pytest.approx(factor * float(usual["loss/g/kl"]))
        assert torch.equal(ramped["loss/g/mel"], usual["loss/g/mel"])


def test_a_fraction_that_no_step_would_have_is_refused():
    with pytest.raises(ValueError, match=r"loss_ramp\.kl is 0\.05, but .*steps is 0: give the"):
        LossRamp(kl=0.05)


@pytest.mark.medium
def test_every_term_of_the_generators_sum_has_its_weight():
    """Twice all weights: twice each term that is logged, and twice the sum of all."""
    names = [field.name for field in fields(LossWeights)]
    assert LossWeights() == LossWeights(**dict.fromkeys(names, 1.0) | {"mel": 45.0})
    told = []
    for factor in (1.0, 2.0):
        weights = LossWeights(**{name: factor * getattr(LossWeights(), name) for name in names})
        cfg = tiny_config(loss_weights=weights, micro_batches_per_step=1)
        told.append(
            TrainingStep(tiny_state(cfg), cfg.train, cfg.data)([(0, tiny_batch(cfg, 0))]).scalars
        )
    for tag in ("total", "fm", "mel", "dur", "kl", "lm", "lm_gen", "dur_gen"):
        assert torch.equal(told[1][f"loss/g/{tag}"], 2 * told[0][f"loss/g/{tag}"]), tag

"""A discriminator and a loss, each declared in one place, go everywhere that the others go."""

import math
from dataclasses import replace

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from data.plan.epoch_plan import Position
from data.stream.evaluation import EvaluationUtterance
from job.evaluate import load_generator
from job.export import export
from job.settings.cli import to_yaml
from tests.tiny import tiny_batch, tiny_config, tiny_state
from tests.trainable.learning.test_step import spread_of
from trainable.evaluation.evaluate import evaluate
from trainable.learning.not_finite import NotFiniteError
from trainable.learning.step import TrainingStep
from trainable.learning.terms import Loss
from trainable.networks.registry import Network, Term, registered
from trainable.run.checkpoint import load_checkpoint, save_checkpoint
from trainable.run.format import CheckpointInfo, read_info
from trainable.run.metrics_file import read_metrics
from trainable.run.records import RunLog
from trainable.weights.warm_start import warm_start


class Toy(nn.Module):
    def __init__(self, _):
        super().__init__()
        self.conv = nn.Conv1d(1, 4, 16, stride=8)

    def forward(self, y):
        return self.conv(y).mean([1, 2])


class ToyAdversary:
    """Its second part is there for micro-batches of more than two utterances only."""

    def __init__(self, _):
        pass

    def loss(self, net, real, generated):
        scores_real, scores_fake = net(torch.cat([real.y, generated.y_hat])).chunk(2)
        first = (1 - scores_real).square().mean()
        second = scores_fake.square().mean()
        parts = {"loss/d2/real": first}
        if len(real.y) > 2:
            parts["loss/d2/fake"] = second
        return Loss(first + second, parts)

    def terms(self, net, real, generated):
        return {"toy_adversarial": (1 - net(generated.y_hat)).square().mean()}


D2 = Network(
    "d2",
    "a toy discriminator",
    build=Toy,
    prefix="D2",
    total="loss/d2/total",
    parts=("loss/d2/real", "loss/d2/fake"),
    adversary=ToyAdversary,
    terms=(Term("toy_adversarial", "what it makes the generator do", tag="loss/g/d2_gen"),),
    learning_rate=1e-3,
    reference_clip=7.0,
)


def offset(real, generated, nets):
    return generated.y_hat.mean().abs() + 0 * nets["g"].enc_p.emb.weight.mean()


OFFSET = Term("offset", "distance of the mean from 0", weight=3.0, tag="loss/g/dc", function=offset)
OWN_TAGS = ("loss/d2/total", "loss/d2/real", "loss/g/d2_gen", "loss/g/dc", "grad_norm_d2")


@pytest.fixture
def toys():
    with registered(D2, OFFSET):
        yield


def steps(cfg, state, count, utterances=lambda slot: 2 + slot):
    """Reports of global steps, from the state's position on."""
    step = TrainingStep(state, cfg.train, cfg.data)
    found = []
    for _ in range(count):
        number = state.position.step
        share = [
            (slot, tiny_batch(cfg, 10 * number + slot, utterances=utterances(slot)))
            for slot in range(cfg.train.micro_batches_per_step)
        ]
        found.append(step(share))
        state.position = Position(number + 1, 0, number + 1)
    return found


@pytest.mark.medium
@pytest.mark.usefixtures("toys")
@pytest.mark.parametrize("reduction", ["fast", "exact"])
def test_trained_logged_saved_resumed_exported_and_evaluated(reduction, tmp_path):
    cfg = tiny_config(reduction=reduction, micro_batches_per_step=2)
    state = tiny_state(cfg)
    before = state.nets["d2"].conv.weight.clone()
    first, second = steps(cfg, state, 2)

    # trained, with its own learning rate and the loss in the sum
    assert not torch.equal(state.nets["d2"].conv.weight, before)
    assert state.optimizers["d2"].param_groups[0]["lr"] == pytest.approx(1e-3)
    assert cfg.train.clip_norm.limit("d2", "bf16") == 7.0
    assert all(first.scalars[tag].isfinite() for tag in OWN_TAGS)

    # logged: a part that one of the micro-batches lacks is left out
    log = RunLog(str(tmp_path / "run"), 0, writes=True)
    rates = dict.fromkeys(("lr", "epoch", "world_size", "utterances", "padding"), 1)
    rates |= dict.fromkeys(("seconds", "seconds_waiting", "peak_gib"), 1.0)
    log.add(first, step=1, **rates)
    log.add(second, step=2, **rates)
    for line in log.flush():
        log.scalars(line)
    log.close()
    for line in read_metrics(str(tmp_path / "run")):
        assert all(math.isfinite(line[tag]) for tag in OWN_TAGS)
        assert "loss/d2/fake" not in line
    board = EventAccumulator(str(tmp_path / "run/tensorboard"))
    board.Reload()
    assert set(OWN_TAGS) <= set(board.Tags()["scalars"])

    # saved and resumed
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    info = CheckpointInfo(state.position, "manifest", "code", {}, {"anna": 0}, 1)
    save_checkpoint(folder, state, info, to_yaml(cfg))
    assert (folder / "d2.safetensors").exists()
    again = tiny_state(cfg)
    load_checkpoint(folder, again)
    assert again.digest() == state.digest()
    expected, found = (steps(cfg, each, 1)[0].scalars for each in (state, again))
    assert {tag: str(v) for tag, v in found.items()} == {tag: str(v) for tag, v in expected.items()}

    # exported, and taken over from there
    files = export(folder, str(tmp_path / "out"), "safetensors")
    assert any(file.endswith("/D2_2.safetensors") for file in files)
    fresh = tiny_state(cfg)
    warm_start(str(tmp_path / "out"), fresh.nets)
    saved = tiny_state(cfg)
    load_checkpoint(folder, saved)
    assert fresh.digest() == saved.digest()

    # evaluated
    g = load_generator(folder, cfg, info, "g")
    own = [EvaluationUtterance(0, 0, tiny_batch(cfg, 0, utterances=1, frames=60), "text", "EN")]
    scores = evaluate(g, own, 1, replace(cfg.eval, syntheses=0), cfg.data, 7)
    assert math.isfinite(scores.means()["eval/mel"])


@pytest.mark.medium
def test_a_checkpoint_is_read_where_its_network_is_not_declared(tmp_path):
    cfg = tiny_config()
    with registered(D2):
        state = tiny_state(cfg)
        save_checkpoint(
            tmp_path, state, CheckpointInfo(Position(), "", "", {}, {}, 1), to_yaml(cfg)
        )
    assert read_info(tmp_path).position == Position()
    again = tiny_state(cfg)
    load_checkpoint(tmp_path, again)
    assert "d2" not in again.nets
    files = export(tmp_path, str(tmp_path / "out"), "safetensors", optimizer=False)
    names = [file.rpartition("/")[2].removesuffix(".safetensors") for file in files]
    assert names == ["DUR_0", "D_0", "G_0", "WD_0", "config.json"]


@pytest.mark.medium
@pytest.mark.usefixtures("toys")
def test_a_part_is_reported_where_all_micro_batches_have_it():
    cfg = tiny_config(micro_batches_per_step=2)
    state = tiny_state(cfg)
    for utterances, expected in ((2, False), (3, True)):
        (report,) = steps(cfg, state, 1, lambda slot, utterances=utterances: utterances)
        present = dict(zip(report.scalars, report.present.tolist(), strict=False))
        assert present["loss/d2/fake"] is expected
        assert present["loss/dur_disc_r/2"] is expected
        assert report.scalars["loss/d2/fake"].isnan().item() is not expected
        assert all(present[tag] for tag in OWN_TAGS if tag != "grad_norm_d2")


@pytest.mark.medium
@pytest.mark.usefixtures("toys")
def test_weights_of_losses_without_a_key_are_those_of_their_declarations():
    cfg = tiny_config(micro_batches_per_step=1)
    plain = steps(cfg, tiny_state(cfg), 1)[0].scalars
    assert cfg.train.loss_weights.of(OFFSET) == 3.0
    step = TrainingStep(tiny_state(cfg), cfg.train, cfg.data)
    assert {"loss/g/dc", "loss/g/d2_gen"} <= set(step.tags)
    terms = [plain[tag] for term in step.terms if (tag := term.tag) is not None]
    adversarial = torch.stack([plain[f"loss/g/{i}"] for i in range(6)]).sum()
    total = torch.stack(terms).sum() + adversarial * cfg.train.loss_weights.adversarial
    assert plain["loss/g/total"].item() == pytest.approx(total.item(), rel=1e-5)


@pytest.mark.medium
@pytest.mark.usefixtures("toys")
def test_a_loss_that_is_no_number_is_named_with_its_network(tmp_path, monkeypatch):
    cfg = tiny_config(micro_batches_per_step=1)
    state = tiny_state(cfg)
    with torch.no_grad():
        state.nets["d2"].conv.bias.fill_(torch.nan)
    (report,) = steps(cfg, state, 1)
    assert report.broken.tolist() == [True]
    log = RunLog(str(tmp_path), 0, writes=False)
    log.add(report, step=1)
    with pytest.raises(NotFiniteError, match=r"network d2: loss/d2/total nan, grad_norm_d2 nan"):
        log.flush()


def nothing(real, generated, nets):
    return None


def several(real, generated, nets):
    return generated.y_hat.mean([1, 2])


def with_a_strange_part(real, generated, nets):
    return Loss(generated.y_hat.mean(), {"loss/g/strange": generated.y_hat.mean()})


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (nothing, "the term odd returned NoneType"),
        (several, r"the term odd returned a loss that is no tensor of one number"),
        (
            with_a_strange_part,
            "the term odd returned loss/g/strange, which its declaration does not list",
        ),
    ],
)
def test_a_term_that_is_not_what_it_declares_fails_at_once(function, message):
    cfg = tiny_config(micro_batches_per_step=1)
    with (
        registered(Term("odd", "wrong", tag="loss/g/odd", function=function)),
        pytest.raises(AssertionError, match=message),
    ):
        steps(cfg, tiny_state(cfg), 1)


class Forgetful(ToyAdversary):
    def terms(self, net, real, generated):
        return {}


class Inventive(ToyAdversary):
    def loss(self, net, real, generated):
        return super().loss(net, real, generated)._replace(parts={"loss/d2/new": real.y.mean()})


@pytest.mark.parametrize(
    ("adversary", "message"),
    [
        (Forgetful, "the adversary of d2 returned the terms none; .* lists toy_adversarial"),
        (Inventive, "the adversary of d2 returned loss/d2/new, which its declaration does not"),
    ],
)
def test_an_adversary_that_is_not_what_it_declares_fails_at_once(adversary, message):
    cfg = tiny_config(micro_batches_per_step=1)
    with (
        registered(replace(D2, adversary=adversary)),
        pytest.raises(AssertionError, match=message),
    ):
        steps(cfg, tiny_state(cfg), 1)


def trained(cfg, rank: int, world_size: int) -> tuple[str, list[str]]:
    """Digest and losses of two steps of a worker, with the toys."""
    torch.set_num_threads(1)
    with registered(D2, OFFSET):
        state = tiny_state(cfg)
        if world_size > 1:
            wrapped = nn.parallel.DistributedDataParallel
            nets = {n: wrapped(net, broadcast_buffers=False) for n, net in state.nets.items()}
            state = replace(state, nets=nets)
        step = TrainingStep(state, cfg.train, cfg.data)
        told = []
        for number in range(2):
            share = [
                (slot, tiny_batch(cfg, 10 * number + slot, utterances=2 + slot))
                for slot in range(2)
                if slot % world_size == rank
            ]
            told.append(str({tag: value.item() for tag, value in step(share).scalars.items()}))
            state.position = Position(number + 1, 0, number + 1)
    return state.digest(), told


@pytest.mark.processes
def test_exact_reduction_gives_the_same_bits_for_any_number_of_workers(tmp_path):
    cfg = tiny_config(reduction="exact", micro_batches_per_step=2)
    threads = torch.get_num_threads()
    alone = trained(cfg, 0, 1)
    torch.set_num_threads(threads)
    assert spread_of(trained, cfg, 2, tmp_path) == [alone, alone]

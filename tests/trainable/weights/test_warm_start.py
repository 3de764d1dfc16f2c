"""Starting from other weights, and handing ours on: what is taken over, reported, and refused."""

import functools
import json
import os
import pickle
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest
import torch
from torch import nn

from data.plan.epoch_plan import Position
from job.settings.cli import to_yaml
from job.settings.reference.config import converted
from job.voice.export import export
from tests.reference.goldens import REFERENCE
from tests.tiny import tiny_batch, tiny_config, tiny_state
from tests.trainable.networks.tiny import with_hifigan
from trainable.learning.optimizer import moments
from trainable.learning.step import TrainingStep
from trainable.run.checkpoint import save_checkpoint
from trainable.run.format import CheckpointInfo
from trainable.weights.published import (
    ADAMW,
    Published,
    prefixes,
    read_published,
    write_safetensors,
)
from trainable.weights.warm_start import warm_start


def network(speakers: int = 3, width: int = 4) -> nn.Module:
    net = nn.Sequential(nn.Linear(width, width), nn.Linear(width, 2))
    net.emb_g = nn.Embedding(speakers, width)
    net.register_buffer("u", torch.rand(width))
    return net


def publish(folder, file: str, net: nn.Module, iteration: int = 7, **changes) -> None:
    model = {key: value.clone() for key, value in net.state_dict().items()} | changes
    model = {key: value for key, value in model.items() if value is not None}
    optimizer = torch.optim.AdamW(net.parameters()).state_dict()
    content = {
        "model": model,
        "iteration": iteration,
        "optimizer": optimizer,
        "learning_rate": 1e-4,
    }
    torch.save(content, folder / file)


def equal(a: nn.Module, b: nn.Module) -> bool:
    return all(map(torch.equal, a.state_dict().values(), b.state_dict().values()))


def test_every_combination_of_files(tmp_path):
    published = {name: network() for name in ("G", "D", "DUR", "WD")}
    names = {"G": "g", "D": "d", "DUR": "dur", "WD": "wd"}
    for chosen in (["G"], ["DUR"], ["D", "WD"], list(names)):
        folder = tmp_path / "".join(chosen)
        folder.mkdir()
        for prefix in chosen:
            publish(folder, f"{prefix}_0.pth", published[prefix])
        nets = {name: network() for name in names.values()}
        report = "\n".join(warm_start(str(folder), nets).report)
        for prefix, name in names.items():
            assert equal(nets[name], published[prefix]) == (prefix in chosen)
            line = f"{prefix}_0.pth: 6 of 6" if prefix in chosen else f"{prefix}_* is missing"
            assert line in report


def test_the_highest_number_wins(tmp_path):
    nets = {number: network() for number in (0, 900, 1000)}
    for number, net in nets.items():
        publish(tmp_path, f"G_{number}.pth", net)
    (tmp_path / "G_latest.pth").write_bytes(b"")
    (tmp_path / "config.json").write_text("{}")
    mine = network()
    report = warm_start(str(tmp_path), {"g": mine}).report
    assert equal(mine, nets[1000])
    assert any(line.startswith("G_latest.pth is not read: it is no name of") for line in report)


def test_a_uri(tmp_path):
    net, mine = network(), network()
    publish(tmp_path, "G_5.pth", net)
    fsspec.filesystem("memory").pipe_file("/published/G_5.pth", (tmp_path / "G_5.pth").read_bytes())
    warm_start("memory://published", {"g": mine})
    assert equal(mine, net)


@pytest.mark.parametrize("theirs", [2, 5])
def test_speakers_are_taken_row_by_row(theirs, tmp_path):
    published, mine = network(speakers=theirs), network(speakers=3)
    table = mine.get_parameter("emb_g.weight")
    before = table.detach().clone()
    publish(tmp_path, "G_0.pth", published)
    report = warm_start(str(tmp_path), {"g": mine}).report
    rows = min(theirs, 3)
    assert torch.equal(table[:rows], published.get_parameter("emb_g.weight")[:rows])
    assert torch.equal(table[rows:], before[rows:])
    assert (
        f"G_0.pth: emb_g.weight has {theirs} rows: the first {rows} of the 3 here are taken over"
        in report
    )


def test_all_that_does_not_fit_is_named(tmp_path):
    published, mine = network(), network()
    before = mine.get_parameter("1.weight").detach().clone()
    changes = {"0.bias": None, "1.weight": torch.zeros(9, 4), "more.weight": torch.zeros(1)}
    publish(tmp_path, "G_0.pth", published, **changes)
    report = warm_start(str(tmp_path), {"g": mine}).report
    assert report == [
        "G_0.pth: 4 of 6 tensors are taken over",
        "G_0.pth: 0.bias is missing",
        "G_0.pth: more.weight is not of this network",
        "G_0.pth: 1.weight has shape [9, 4], expected [2, 4]",
    ]
    assert torch.equal(mine.get_parameter("1.weight"), before)
    assert torch.equal(mine.get_parameter("0.weight"), published.get_parameter("0.weight"))


def trained_state(spectral: bool = False, **train):
    """A tiny state after one step, so that its optimizers have a history."""
    cfg = tiny_config(micro_batches_per_step=1, **train)
    cfg = replace(cfg, model=replace(cfg.model, use_spectral_norm=spectral))
    state = tiny_state(cfg)
    TrainingStep(state, cfg.train, cfg.data)([(0, tiny_batch(cfg, 0))])
    state.position = Position(1, 0, 1)
    return cfg, state


def saved(folder, cfg, state):
    folder.mkdir()
    info = CheckpointInfo(state.position, "digest", "code", {}, {"Ann": 0, "Bo": 1}, 1)
    save_checkpoint(folder, state, info, to_yaml(cfg))
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Configuration, state and checkpoint of a trained network; read only."""
    cfg, state = trained_state()
    return cfg, state, saved(tmp_path_factory.mktemp("trained") / "checkpoint", cfg, state)


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    """Export the checkpoint of `trained` in a form, each once; read only."""

    @functools.cache
    def folder_of(form: str) -> Path:
        out = tmp_path_factory.mktemp("exported") / "out"
        export(trained[2], str(out), form)
        return out

    return folder_of


def all_tensors(state) -> dict[str, torch.Tensor]:
    found = {}
    for name, net in state.nets.items():
        found |= {f"{name}.{key}": value for key, value in net.state_dict().items()}
        for key, entry in moments(net, state.optimizers[name]).items():
            found |= {f"{name}.{key}.{kind}": value for kind, value in entry.items()}
    return found


def assert_same(a, b) -> None:
    a, b = all_tensors(a), all_tensors(b)
    assert a.keys() == b.keys()
    assert [key for key in a if not torch.equal(a[key], b[key])] == []


@pytest.fixture(scope="module")
def run_of_three(tmp_path_factory):
    """A folder with a run of three checkpoints, and step -> digest of each; read only."""
    folder_of_runs, digests = tmp_path_factory.mktemp("runs"), {}
    for step, score in ((5, 3.0), (10, 2.0), (15, 4.0)):
        cfg = tiny_config(seed=step)
        state = tiny_state(cfg)
        digests[step] = state.digest()
        folder = folder_of_runs / f"run/checkpoint_{step:09d}"
        folder.mkdir(parents=True)
        info = CheckpointInfo(
            Position(step), "digest", "code", {}, {"Ann": 0}, 1, {"eval/mel": score}
        )
        save_checkpoint(folder, state, info, to_yaml(cfg))
    return folder_of_runs, digests


@pytest.mark.medium
@pytest.mark.parametrize("source", ["run/best", "{}/run/best", "run", "run/checkpoint_000000010"])
def test_a_run_and_its_checkpoints(source, run_of_three, monkeypatch):
    folder, digests = run_of_three
    monkeypatch.chdir(folder)  # `run/best` could be a name on the hub, too
    mine = tiny_state(tiny_config(seed=1))
    warm_start(source.format(folder), mine.nets)
    assert mine.digest() == digests[15 if source == "run" else 10]


@pytest.mark.medium
@pytest.mark.parametrize("form", ["reference", "safetensors"])
def test_import_export_import_leaves_every_bit(form, tmp_path):
    """Weights, optimizers and learning rates; also straight from the checkpoint of another run."""
    cfg, state = trained_state(learning_rate=3e-4)
    first = saved(tmp_path / "checkpoint", cfg, state)
    sources = [first]
    for round_ in (1, 2):
        out = tmp_path / f"exported{round_}"
        export(sources[-1], str(out), form)
        again = tiny_state(tiny_config(seed=round_, micro_batches_per_step=1))
        taken = warm_start(str(out), again.nets, again.optimizers)
        assert_same(again, state)
        assert taken.learning_rates == dict.fromkeys(state.nets, 3e-4)
        again.base_rates, again.position = taken.learning_rates, state.position
        sources.append(saved(tmp_path / f"checkpoint{round_}", cfg, again))
    direct = tiny_state(tiny_config(seed=9, micro_batches_per_step=1))
    warm_start(str(first), direct.nets, direct.optimizers)
    assert_same(direct, state)
    batch = tiny_batch(cfg, 1)  # and it goes on alike
    for each in (direct, state):
        each.position, each.base_rates = Position(1, 0, 1), dict.fromkeys(state.nets, 3e-4)
        TrainingStep(each, cfg.train, cfg.data)([(0, batch)])
    assert_same(direct, state)


FILES = {"reference": "D_1.pth", "safetensors": "D_1.safetensors"}


@pytest.mark.medium
@pytest.mark.parametrize("form", FILES)
def test_files_with_spectral_norm_go_both_ways(form, tmp_path):
    """Its vectors lie beside the weights, by the reference's names, and are no parameters."""
    cfg, state = trained_state(spectral=True)
    out = tmp_path / "out"
    export(saved(tmp_path / "checkpoint", cfg, state), str(out), form)
    theirs = read_published(out / FILES[form])
    names = REFERENCE.json("state_dict_names")["MultiPeriodDiscriminator/use_spectral_norm"]
    assert set(theirs.weights) == set(names)
    description = json.loads((out / "config.json").read_text())
    assert converted(description).ours["model.use_spectral_norm"] is True

    again = tiny_state(replace(cfg, train=replace(cfg.train, seed=2)))
    warm_start(str(out), again.nets, again.optimizers)
    assert_same(again, state)
    again.position = state.position
    for each in (again, state):
        TrainingStep(each, cfg.train, cfg.data)([(0, tiny_batch(cfg, 1))])
    assert_same(again, state)


@pytest.mark.medium
def test_a_discriminator_that_the_reference_wrote_with_spectral_norm(tmp_path):
    """Its AdamW numbers the parameters alone, in the order of its layers."""
    cfg, state = trained_state(spectral=True)
    net = state.nets["d"]
    theirs = torch.optim.AdamW(net.parameters(), 1e-4)
    for number, p in enumerate(net.parameters()):
        theirs.state[p] = {
            "step": torch.tensor(7.0),
            "exp_avg": torch.full_like(p, number),
            "exp_avg_sq": torch.full_like(p, 2 * number),
        }
    publish(tmp_path, "D_7.pth", net)
    content = torch.load(tmp_path / "D_7.pth", weights_only=True)
    torch.save(content | {"optimizer": theirs.state_dict()}, tmp_path / "D_7.pth")
    again = tiny_state(replace(cfg, train=replace(cfg.train, seed=2)))
    taken = warm_start(str(tmp_path), {"d": again.nets["d"]}, {"d": again.optimizers["d"]})
    assert taken.initial == ""
    assert equal(again.nets["d"], net)
    read = moments(again.nets["d"], again.optimizers["d"])
    for number, entry in enumerate(read.values()):
        assert (entry["exp_avg"] == number).all()
        assert (entry["exp_avg_sq"] == 2 * number).all()


@pytest.mark.medium
def test_an_exported_file_is_the_references(trained, exported):
    """It loads with weights_only, has the reference's keys, and its AdamW takes the state."""
    cfg, state, _ = trained
    out = exported("reference")
    for name, prefix in prefixes().items():
        content = torch.load(out / f"{prefix}_1.pth", weights_only=True)
        assert content.keys() == {"model", "iteration", "optimizer", "learning_rate"}
        assert content["iteration"] == 1  # the first epoch, as it is counted there
        assert list(content["model"]) == list(state.nets[name].state_dict())
        theirs = torch.optim.AdamW(state.nets[name].parameters(), 1e-4)
        theirs.load_state_dict(content["optimizer"])
        # asks for initial_lr
        torch.optim.lr_scheduler.ExponentialLR(theirs, gamma=0.9, last_epoch=3)
        for p, own in zip(
            theirs.param_groups[0]["params"],
            moments(state.nets[name], state.optimizers[name]).values(),
            strict=True,
        ):
            assert own.keys() == theirs.state[p].keys()
            assert all(torch.equal(theirs.state[p][kind], value) for kind, value in own.items())
    config = json.loads((out / "config.json").read_text())
    assert config["data"]["spk2id"] == {"Ann": 0, "Bo": 1}
    assert (
        config["model"]["slm"]["hidden"] * config["model"]["slm"]["nlayers"]
        == state.nets["wd"].pre.in_channels
    )
    with_hifigan(  # as the reference's tools build it
        112,
        config["data"]["filter_length"] // 2 + 1,
        config["train"]["segment_size"] // config["data"]["hop_length"],
        n_speakers=config["data"]["n_speakers"],
        bert_channels=cfg.model.bert_channels,
        **{key: value for key, value in config["model"].items() if key not in OTHERS},
    ).load_state_dict(torch.load(out / "G_1.pth", weights_only=True)["model"])


# not the generator's
OTHERS = {"slm", "n_layers_q", "use_spectral_norm", "use_duration_discriminator"}


@pytest.mark.medium
def test_nothing_is_overwritten_by_an_export(trained, tmp_path):
    _, _, folder = trained
    out = tmp_path / "out"
    assert [
        path.rpartition("/")[2] for path in export(folder, str(out), "reference", ["g"], False)
    ] == [
        "G_1.pth",
        "config.json",
    ]
    assert torch.load(out / "G_1.pth", weights_only=True)["optimizer"] is None
    with pytest.raises(ValueError, match=r"holds G_1.pth, config.json already"):
        export(folder, str(out), "reference", ["g"], False)


def test_optimizers_of_published_files(tmp_path):
    """By number in the file, by name here; the speakers' rows too."""
    theirs, mine = network(speakers=2), network(speakers=3)
    optimizer = torch.optim.AdamW(theirs.parameters(), 7e-5)
    sum(p.square().sum() for p in theirs.parameters()).backward()
    optimizer.step()
    content = {
        "model": theirs.state_dict(),
        "optimizer": optimizer.state_dict(),
        "learning_rate": 1e-4,
        "iteration": 3,
    }
    torch.save(content, tmp_path / "D_8.pth")
    own = torch.optim.AdamW(mine.parameters(), 1e-3, betas=(0.1, 0.2))
    taken = warm_start(str(tmp_path), {"d": mine}, {"d": own})
    # in use when it was saved; `learning_rate` is what it began with
    assert taken.learning_rates == {"d": 7e-5}
    assert "D_8.pth: the optimizer's state of 5 parameters too, learning rate 7e-05" in taken.report
    assert own.param_groups[0]["betas"] == (0.1, 0.2)
    first, second = moments(theirs, optimizer), moments(mine, own)
    assert first.keys() == second.keys()
    for name, entry in second.items():
        average = entry["exp_avg"]
        assert torch.equal(
            average[:2] if name == "emb_g.weight" else average, first[name]["exp_avg"]
        )
        assert entry["step"] == 1
    assert not second["emb_g.weight"]["exp_avg"][2].any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda o: None, r"holds no optimizer state"),
        (
            lambda o: {"state": {0: {"momentum_buffer": torch.zeros(1)}}, "param_groups": []},
            "is not AdamW's",
        ),
        (lambda o: {**o, "state": [1]}, "is not AdamW's"),
        (lambda o: {**o, "param_groups": []}, "is not AdamW's"),
        (
            lambda o: {**o, "param_groups": [{"lr": 1.0, "params": [0, 1]}]},
            r"2 parameters, its network 5",
        ),
        (
            lambda o: {**o, "state": {0: dict.fromkeys(ADAMW, torch.full((4, 4), torch.nan))}},
            "NaN or infinity",
        ),
    ],
)
def test_optimizers_that_cannot_be_taken_over(change, message, tmp_path):
    net = network()
    optimizer = torch.optim.AdamW(net.parameters()).state_dict()
    torch.save({"model": net.state_dict(), "optimizer": change(optimizer)}, tmp_path / "G_1.pth")
    mine = network()
    with pytest.raises(ValueError, match=message):
        warm_start(str(tmp_path), {"g": mine}, {"g": torch.optim.AdamW(mine.parameters())})
    warm_start(str(tmp_path), {"g": mine})  # the weights alone
    assert equal(mine, net)


def test_nothing_is_changed_unless_everything_fits(tmp_path):
    publish(tmp_path, "G_0.pth", network())
    (tmp_path / "D_0.pth").write_bytes(b"half")
    mine = network()
    before = {key: value.clone() for key, value in mine.state_dict().items()}
    with pytest.raises(ValueError, match=r"D_0\.pth is refused"):
        warm_start(str(tmp_path), {"g": mine, "d": network()})
    assert all(map(torch.equal, mine.state_dict().values(), before.values()))


@pytest.mark.medium
def test_files_of_early_versions_lack_projections(tmp_path):
    """They are set to zero: the voice speaks as it did, and they learn from there."""
    cfg = tiny_config()
    published, mine = tiny_state(cfg).nets["g"], tiny_state(cfg).nets["g"]
    missing = {
        f"enc_p.{language}_bert_proj.{kind}"
        for language in ("ja", "en")
        for kind in ("weight", "bias")
    }
    extra = {"enc_p.emo_proj.weight": torch.ones(3)}
    publish(tmp_path, "G_0.pth", published, **dict.fromkeys(missing), **extra)
    report = warm_start(str(tmp_path), {"g": mine}).report
    given = published.state_dict()
    for key, value in mine.state_dict().items():
        expected = torch.zeros_like(value) if key in missing else given[key]
        assert torch.equal(value, expected), key
    assert all(
        f"G_0.pth: {key} is set to zero, so that the voice speaks as it did before it had one"
        in report
        for key in missing
    )
    assert "G_0.pth: enc_p.emo_proj.weight is not of this network" in report


@pytest.mark.parametrize(
    "damage", [lambda c: c[:-9], lambda c: c[:40], lambda c: b"", lambda c: c[:8] + b"x" + c[9:]]
)
def test_damaged_safetensors_are_refused(damage, tmp_path):
    path = tmp_path / "D_0.safetensors"
    write_safetensors(path, Published(network().state_dict()))
    warm_start(str(tmp_path), {"d": network()})
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(
        ValueError, match=r"D_0.safetensors is refused: it is truncated, damaged or no safetensors"
    ):
        warm_start(str(tmp_path), {"d": network()})


def test_a_network_that_is_not_trained(tmp_path):
    publish(tmp_path, "G_0.pth", network())
    publish(tmp_path, "DUR_0.pth", network())
    report = warm_start(str(tmp_path), {"g": network()}).report
    assert "DUR_0.pth is not used: model.* asks for no network `dur`" in report


def test_half_precision(tmp_path):
    published, mine = network(), network()
    publish(tmp_path, "G_0.pth", published.half())
    warm_start(str(tmp_path), {"g": mine})
    table = mine.get_parameter("emb_g.weight")
    assert table.dtype == torch.float32
    assert torch.equal(table, published.get_parameter("emb_g.weight").float())


def test_another_architecture_is_refused(tmp_path):
    publish(tmp_path, "G_0.pth", network(width=6))
    with pytest.raises(
        ValueError,
        match=r"G_0.pth is of another architecture, only 1 of 6 tensors fit: .*model\.\*",
    ):
        warm_start(str(tmp_path), {"g": network(width=4)})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_broken_weights_are_refused(value, tmp_path):
    weight = torch.zeros(4, 4)
    weight[3, 3] = value
    publish(tmp_path, "G_0.pth", network(), **{"0.weight": weight})
    with pytest.raises(ValueError, match=r"G_0.pth is refused: NaN or infinity in 0.weight"):
        warm_start(str(tmp_path), {"g": network()})


@pytest.mark.parametrize("folder", ["", "missing"])
def test_a_folder_without_weights_is_refused(folder, tmp_path):
    (tmp_path / "G_latest.pth").write_bytes(b"")
    with pytest.raises(
        ValueError, match=r"train.init_from .* holds neither published weights .* nor a run"
    ):
        warm_start(str(tmp_path / folder), {"g": network()})


@pytest.mark.parametrize("legacy", [False, True])
def test_a_truncated_file_is_refused(legacy, tmp_path):
    net = network()
    path = tmp_path / "D_0.pth"
    torch.save({"model": net.state_dict()}, path, _use_new_zipfile_serialization=not legacy)
    warm_start(str(tmp_path), {"d": network()})  # whole, both formats load
    content = path.read_bytes()
    for size in (0, 1, 10, 100, len(content) // 2, len(content) - 10):
        path.write_bytes(content[:size])
        with pytest.raises(
            ValueError, match=r"D_0.pth is refused: it is truncated, damaged or no torch file"
        ):
            warm_start(str(tmp_path), {"d": network()})


def test_a_failing_storage_is_no_damage(tmp_path, monkeypatch):
    """A worker gives up on a ValueError, and tries again after any other."""
    publish(tmp_path, "G_0.pth", network())

    def fail(*_, **__):
        raise OSError("connection reset")

    monkeypatch.setattr(torch, "load", fail)
    with pytest.raises(OSError, match="connection reset"):
        warm_start(str(tmp_path), {"g": network()})


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("legacy", [False, True])
def test_pickled_code_is_refused_and_not_run(legacy, tmp_path):
    trace = tmp_path / "trace"
    content = {"model": network().state_dict(), "optimizer": Malicious(str(trace))}
    torch.save(content, tmp_path / "G_0.pth", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(
        ValueError,
        match=r"G_0.pth is refused: it holds pickled code \(posix.mkdir\), which is not run",
    ):
        warm_start(str(tmp_path), {"g": network()})
    assert not trace.exists()


@pytest.mark.parametrize("content", [{"weights": {}}, {"model": {"a": 1}}, [1]])
def test_another_layout_is_refused(content, tmp_path):
    torch.save(content, tmp_path / "G_0.pth")
    with pytest.raises(ValueError, match=r"G_0.pth is refused: it has no key `model`"):
        warm_start(str(tmp_path), {"g": network()})


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_another_pickle_is_refused(tmp_path):
    (tmp_path / "G_0.pth").write_bytes(pickle.dumps({"model": {}}))
    with pytest.raises(
        ValueError, match=r"G_0.pth is refused: it is truncated, damaged or no torch file"
    ):
        warm_start(str(tmp_path), {"g": network()})


OLD, NEW = {"Ann": 0, "Bo": 1}, {"Abe": 0, "Ann": 1, "Bo": 2, "Cy": 3}


@pytest.mark.medium
@pytest.mark.parametrize("source", ["checkpoint", "reference", "safetensors", "memory"])
def test_speakers_are_matched_by_name(source, trained, exported):
    """From a run, from what it exports, and from a URI: whose names stand in config.json."""
    _, state, folder = trained  # of OLD
    if source != "checkpoint":
        folder = exported("reference" if source == "memory" else source)
    if source == "memory":
        fsspec.filesystem("memory").put(f"{folder}/", "/named/", recursive=True)
        folder = "memory://named"

    mine = tiny_state(tiny_config(seed=1, micro_batches_per_step=1))
    before = mine.nets["g"].emb_g.weight.detach().clone()
    report = warm_start(str(folder), mine.nets, mine.optimizers, speakers=NEW).report
    theirs, table = state.nets["g"].emb_g.weight, mine.nets["g"].emb_g.weight
    assert torch.equal(table[[1, 2]], theirs[[0, 1]])
    assert torch.equal(table[[0, 3, 4, 5]], before[[0, 3, 4, 5]])
    assert not torch.equal(table[0], theirs[0])

    averages = [
        moments(each.nets["g"], each.optimizers["g"])["emb_g.weight"]["exp_avg"]
        for each in (mine, state)
    ]
    assert averages[1][:2].any()
    assert torch.equal(averages[0][[1, 2]], averages[1][[0, 1]])
    assert not averages[0][[0, 3]].any()
    (line,) = [line for line in report if "matched by name" in line]
    assert "2 speakers are taken over, 2 are new and keep their initial rows (Abe, Cy)" in line


@pytest.mark.medium
def test_speakers_that_are_left_out_are_named(trained):
    _, state, folder = trained
    mine = tiny_state(tiny_config(seed=1))
    report = "\n".join(warm_start(str(folder), mine.nets, speakers={"Bo": 0}).report)
    assert torch.equal(mine.nets["g"].emb_g.weight[0], state.nets["g"].emb_g.weight[1])
    assert "1 speakers are taken over, 0 are new" in report
    assert "1 are left out (Ann)" in report


@pytest.mark.parametrize("content", [None, "{}", '{"data": {"spk2id": {}}}'])
def test_weights_without_names_are_matched_by_number(content, tmp_path):
    published, mine = network(speakers=2), network(speakers=3)
    publish(tmp_path, "G_0.pth", published)
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    report = warm_start(str(tmp_path), {"g": mine}, speakers=NEW).report
    table = mine.get_parameter("emb_g.weight")
    assert torch.equal(table[:2], published.get_parameter("emb_g.weight"))
    assert (
        "G_0.pth: emb_g.weight: the weights name no speakers, rows are matched by number" in report
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("not JSON", "config.json does not tell its speakers"),
        ('{"data": {"spk2id": {"Ann": "x"}}}', "config.json does not tell its speakers"),
        ('{"data": {"spk2id": {"Ann": 1.5}}}', r"data\.spk2id \(Ann is 1\.5, no whole number\)"),
        ('{"data": {"spk2id": {"Ann": 0, "Ann ": 1}}}', r"data\.spk2id names Ann twice"),
        ('{"data": {"spk2id": {"Ann": 9}}}', "speaker Ann has row 9, but emb_g.weight has 3 rows"),
    ],
)
def test_names_that_cannot_be_are_refused(content, message, tmp_path):
    publish(tmp_path, "G_0.pth", network())
    (tmp_path / "config.json").write_text(content)
    mine = network()
    before = mine.get_parameter("0.weight").detach().clone()
    with pytest.raises(ValueError, match=rf"train.init_from .*{message}"):
        warm_start(str(tmp_path), {"g": mine}, speakers=NEW)
    assert torch.equal(mine.get_parameter("0.weight"), before)


def test_the_compressed_form_of_the_reference(tmp_path):
    """Without optimizer and posterior encoder, in half precision; the whole file wins over it."""
    cfg = tiny_config()
    published, mine = (tiny_state(tiny_config(seed=seed)).nets["g"] for seed in (1, 2))
    before = {key: value.clone() for key, value in mine.state_dict().items()}
    half = {
        key: value.half()
        for key, value in published.state_dict().items()
        if not key.startswith("enc_q.")
    }
    torch.save({"model": half, "iteration": 0}, tmp_path / "G_8000_release.pth")
    taken = warm_start(str(tmp_path), {"g": mine})
    for key, value in mine.state_dict().items():
        expected = before[key] if key.startswith("enc_q.") else half[key].float()
        assert torch.equal(value, expected), key

    share = sum(before[key].numel() for key in before.keys() - half.keys())
    share /= sum(value.numel() for value in before.values())
    assert taken.initial == f"g: {share:.1%} (enc_q)"
    assert (taken.step, taken.epoch) == (8000, 0)
    assert cfg.train.init_step == "auto"

    publish(tmp_path, "G_8000.pth", published)
    taken = warm_start(str(tmp_path), {"g": mine})
    assert taken.initial == ""
    assert torch.equal(mine.enc_q.pre.weight, published.enc_q.pre.weight)


def test_what_keeps_its_initial_value_is_told_with_its_share(tmp_path):
    published, mine = network(speakers=2), network(speakers=6)
    publish(tmp_path, "G_3.pth", published, **{"0.bias": None})
    (tmp_path / "config.json").write_text(json.dumps({"data": {"spk2id": {"Ann": 1, "Bo": 0}}}))
    nets = {"g": mine, "wd": network()}
    numbers = sum(value.numel() for value in mine.state_dict().values())
    told = warm_start(str(tmp_path), nets, speakers={"Ann": 0, "Cy": 1, "Di": 2}).initial
    # a bias of 4; rows of width 4 of two speakers that are new, not those that wait for one
    assert told == f"g: {(4 + 2 * 4) / numbers:.1%} (0, emb_g); wd: all, it has no file"
    assert warm_start(str(tmp_path), {"g": network(speakers=2)}).initial.startswith("g: ")

"""Published weights: what is taken over, what is reported, and what is refused."""

import logging
import os
import pickle
from types import SimpleNamespace

import fsspec
import pytest
import torch
from torch import nn

from tests.tiny import tiny_config, tiny_state
from trainable.published import load_published
from trainable.worker import Worker


def network(speakers: int = 3, width: int = 4) -> nn.Module:
    net = nn.Sequential(nn.Linear(width, width), nn.Linear(width, 2))
    net.emb_g = nn.Embedding(speakers, width)
    net.register_buffer("u", torch.rand(width))
    return net


def publish(folder, file: str, net: nn.Module, **changes) -> None:
    model = {key: value.clone() for key, value in net.state_dict().items()} | changes
    model = {key: value for key, value in model.items() if value is not None}
    optimizer = torch.optim.AdamW(net.parameters()).state_dict()
    content = {"model": model, "iteration": 7, "optimizer": optimizer, "learning_rate": 1e-4}
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
        report = "\n".join(load_published(str(folder), nets))
        for prefix, name in names.items():
            assert equal(nets[name], published[prefix]) == (prefix in chosen)
            line = f"{prefix}_0.pth: 6 of 6" if prefix in chosen else f"{prefix}_*.pth is missing"
            assert line in report


def test_the_highest_number_wins(tmp_path):
    nets = {number: network() for number in (0, 900, 1000)}
    for number, net in nets.items():
        publish(tmp_path, f"G_{number}.pth", net)
    (tmp_path / "G_latest.pth").write_bytes(b"")
    (tmp_path / "config.json").write_text("{}")
    mine = network()
    load_published(str(tmp_path), {"g": mine})
    assert equal(mine, nets[1000])


def test_a_uri(tmp_path):
    net, mine = network(), network()
    publish(tmp_path, "G_5.pth", net)
    fsspec.filesystem("memory").pipe_file("/published/G_5.pth", (tmp_path / "G_5.pth").read_bytes())
    load_published("memory://published", {"g": mine})
    assert equal(mine, net)


@pytest.mark.parametrize("theirs", [2, 5])
def test_speakers_are_taken_row_by_row(theirs, tmp_path):
    published, mine = network(speakers=theirs), network(speakers=3)
    table = mine.get_parameter("emb_g.weight")
    before = table.detach().clone()
    publish(tmp_path, "G_0.pth", published)
    report = load_published(str(tmp_path), {"g": mine})
    rows = min(theirs, 3)
    assert torch.equal(table[:rows], published.get_parameter("emb_g.weight")[:rows])
    assert torch.equal(table[rows:], before[rows:])
    assert f"G_0.pth: emb_g.weight has {theirs} rows: the first {rows} of the 3 here are taken over" in report


def test_all_that_does_not_fit_is_named(tmp_path):
    published, mine = network(), network()
    before = mine.get_parameter("1.weight").detach().clone()
    changes = {"0.bias": None, "1.weight": torch.zeros(9, 4), "more.weight": torch.zeros(1)}
    publish(tmp_path, "G_0.pth", published, **changes)
    report = load_published(str(tmp_path), {"g": mine})
    assert report == [
        "G_0.pth: 4 of 6 tensors are taken over",
        "G_0.pth: 0.bias is missing",
        "G_0.pth: more.weight is not of this network",
        "G_0.pth: 1.weight has shape [9, 4], expected [2, 4]",
    ]
    assert torch.equal(mine.get_parameter("1.weight"), before)
    assert torch.equal(mine.get_parameter("0.weight"), published.get_parameter("0.weight"))


def test_a_worker_starts_a_run_from_them(tmp_path, caplog):
    """The networks themselves; optimizers and position stay those of a new run."""
    published = tiny_state(tiny_config(seed=1))
    for name, net in published.nets.items():
        publish(tmp_path, f"{name.upper()}_0.pth", net)
    cfg = tiny_config(seed=2, init_from=str(tmp_path))
    state = tiny_state(cfg)
    assert state.digest() != published.digest()
    with caplog.at_level(logging.INFO, "bert_vits2_ray"):
        Worker.start(SimpleNamespace(cfg=cfg, rank=0, state=state))  # type: ignore[arg-type]
    assert state.digest() == published.digest()
    for name, net in state.nets.items():
        tensors = len(net.state_dict())
        assert f"{name.upper()}_0.pth: {tensors} of {tensors} tensors are taken over" in caplog.text
        assert not state.optimizers[name].state
    assert state.position.step == 0


def test_a_network_that_is_not_trained(tmp_path):
    publish(tmp_path, "G_0.pth", network())
    publish(tmp_path, "DUR_0.pth", network())
    report = load_published(str(tmp_path), {"g": network()})
    assert "DUR_0.pth is not used: model.* asks for no network `dur`" in report


def test_half_precision(tmp_path):
    published, mine = network(), network()
    publish(tmp_path, "G_0.pth", published.half())
    load_published(str(tmp_path), {"g": mine})
    table = mine.get_parameter("emb_g.weight")
    assert table.dtype == torch.float32
    assert torch.equal(table, published.get_parameter("emb_g.weight").float())


def test_another_architecture_is_refused(tmp_path):
    publish(tmp_path, "G_0.pth", network(width=6))
    with pytest.raises(ValueError, match=r"G_0.pth is of another architecture, only 1 of 6 tensors fit: .*model\.\*"):
        load_published(str(tmp_path), {"g": network(width=4)})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_broken_weights_are_refused(value, tmp_path):
    weight = torch.zeros(4, 4)
    weight[3, 3] = value
    publish(tmp_path, "G_0.pth", network(), **{"0.weight": weight})
    with pytest.raises(ValueError, match=r"G_0.pth is refused: NaN or infinity in 0.weight"):
        load_published(str(tmp_path), {"g": network()})


@pytest.mark.parametrize("folder", ["", "missing"])
def test_a_folder_without_weights_is_refused(folder, tmp_path):
    (tmp_path / "G_latest.pth").write_bytes(b"")
    with pytest.raises(ValueError, match=r"train.init_from .* none of G_\*.pth, D_\*.pth, DUR_\*.pth, WD_\*.pth"):
        load_published(str(tmp_path / folder), {"g": network()})


@pytest.mark.parametrize("legacy", [False, True])
def test_a_truncated_file_is_refused(legacy, tmp_path):
    net = network()
    path = tmp_path / "D_0.pth"
    torch.save({"model": net.state_dict()}, path, _use_new_zipfile_serialization=not legacy)
    load_published(str(tmp_path), {"d": network()})  # whole, both formats load
    content = path.read_bytes()
    for size in (0, 1, 10, 100, len(content) // 2, len(content) - 10):
        path.write_bytes(content[:size])
        with pytest.raises(ValueError, match=r"D_0.pth is refused: it is truncated, damaged or no torch file"):
            load_published(str(tmp_path), {"d": network()})


def test_a_failing_storage_is_no_damage(tmp_path, monkeypatch):
    """A worker gives up on a ValueError, and tries again after any other."""
    publish(tmp_path, "G_0.pth", network())

    def fail(*_, **__):
        raise OSError("connection reset")

    monkeypatch.setattr(torch, "load", fail)
    with pytest.raises(OSError, match="connection reset"):
        load_published(str(tmp_path), {"g": network()})


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
        ValueError, match=r"G_0.pth is refused: it holds pickled code \(posix.mkdir\), which is not run"
    ):
        load_published(str(tmp_path), {"g": network()})
    assert not trace.exists()


@pytest.mark.parametrize("content", [{"weights": {}}, {"model": {"a": 1}}, [1]])
def test_another_layout_is_refused(content, tmp_path):
    torch.save(content, tmp_path / "G_0.pth")
    with pytest.raises(ValueError, match=r"G_0.pth is refused: it has no key `model`"):
        load_published(str(tmp_path), {"g": network()})


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_another_pickle_is_refused(tmp_path):
    (tmp_path / "G_0.pth").write_bytes(pickle.dumps({"model": {}}))
    with pytest.raises(ValueError, match=r"G_0.pth is refused: it is truncated, damaged or no torch file"):
        load_published(str(tmp_path), {"g": network()})

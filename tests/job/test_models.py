"""Models that are nowhere are refused by their key before Ray starts; the doctor finds them."""

import json
import re
import time
from dataclasses import replace

import pytest

from data.bert.features import BertFeatures
from data.models import HubUnreachableError, find_model, weights_to_load
from job.on_ray.health import fitness, needs
from job.on_ray.health.fitness import Check
from job.settings.config import Config
from job.settings.paths import with_absolute_paths
from tests.job.conftest import DEMO, arguments
from tests.job.test_bad_input import error_of
from tests.job.test_doctor import NO_GPU, NODE
from tests.tiny import demo_config
from trainable.model_config import SlmConfig
from trainable.networks.wavlm import WavLMFeatures
from trainable.weights.slm import load_slm

CLOSED = "http://127.0.0.1:9"  # the port of discard, where nobody listens


@pytest.fixture(autouse=True)
def no_hub(monkeypatch, tmp_path):
    """A machine without the hub, and without anything in its cache."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", CLOSED)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@pytest.fixture
def fails(call, monkeypatch):
    """The error of a command that fails before Ray starts."""

    def start(*_):
        raise AssertionError("Ray was asked")

    monkeypatch.setattr("job.on_ray.cluster.ray_session", start)
    return lambda module, *argv: error_of(call(module, *argv))


@pytest.mark.medium
@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("train.init_from", "models/base", "no such folder here.* does not answer"),
        ("train.init_from", "models/base@v2", "no such folder here.* does not answer"),
        ("train.init_from", "/no/such/folder", "holds neither published weights"),
        ("model.slm.path", "models/wavlm", "no such folder here.* does not answer"),
        ("model.slm.path", "/no/such/wavlm", "no such folder, and it is no name on the hub"),
        ("model.slm.path", "{tmp}/empty", r"the folder has no config\.json"),
        ("model.slm.path", "{tmp}/hollow", "the folder has no weights"),
        ("model.slm.path", "{tmp}/file", "a file, where a model's folder is wanted"),
        ("data.bert.en", "models/bert", "no such folder here.* does not answer"),
    ],
)
def test_a_model_that_is_nowhere_is_refused_by_its_key(key, value, told, fails, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "hollow").mkdir()
    (tmp_path / "hollow/config.json").write_text("{}", encoding="utf-8")
    (tmp_path / "file").write_text("", encoding="utf-8")
    value = value.format(tmp=tmp_path)
    options = [f"--{key}", value, "--train.hub_endpoint", CLOSED]
    message = fails("job.train", *arguments(tmp_path / "shards", tmp_path / "runs"), *options)
    assert message.startswith(f"error: {key} ")
    assert value in message
    assert not (tmp_path / "runs").exists()


@pytest.mark.medium
def test_a_preparation_looks_for_the_models_of_its_languages(fails, tmp_path):
    own = tmp_path / "esd.list"
    own.write_text("a.wav|a|EN|Hello.\n", encoding="utf-8")
    base = ["--config", str(DEMO), "--data.transcript", str(own)]
    shards = ["--data.shards", str(tmp_path / "shards")]
    message = fails("job.prepare", *base, *shards, "--data.bert.en", "models/bert")
    assert message.startswith("error: data.bert.en is models/bert: there is no such folder here")
    assert not (tmp_path / "shards").exists()


def test_what_is_here_needs_no_hub(tmp_path):
    assert find_model("k", "random").where == "made here"
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert find_model("k", str(tmp_path)).where == "folder"
    snapshot = tmp_path / "cache/models--a--b/snapshots/123"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}", encoding="utf-8")
    refs = tmp_path / "cache/models--a--b/refs"
    refs.mkdir()
    (refs / "main").write_text("123", encoding="utf-8")
    with pytest.raises(HubUnreachableError):  # only its description is here
        find_model("k", "a/b")
    (snapshot / "pytorch_model.bin").write_bytes(b"")
    assert find_model("k", "a/b").where == "cache"


def test_safetensors_are_what_is_downloaded():
    both = {"model.safetensors": 5, "pytorch_model.bin": 7, "config.json": 1, "tf_model.h5": 9}
    assert weights_to_load(both) == 5
    assert weights_to_load({"pytorch_model.bin": 7}) == 7
    assert weights_to_load({"model-00001-of-00002.safetensors": 3, "tf_model.h5": 9}) == 3


def states(checks) -> dict[str, Check]:
    return {check.name: check for check in checks}


def test_the_doctor_says_which_models_are_missing(tmp_path):
    cfg = with_absolute_paths(demo_config())
    slm = replace(cfg.model.slm, path="models/wavlm")
    train = replace(cfg.train, init_from="models/base", hub_endpoint=CLOSED)
    data = replace(cfg.data, shards=str(tmp_path / "shards"))
    cfg = replace(cfg, model=replace(cfg.model, slm=slm), train=train, data=data)
    found = states(needs.models(cfg, [NODE]))
    assert found["model.slm.path"].state == found["train.init_from"].state == "FAIL"
    assert {found[f"data.bert.{code}"].state for code in ("zh", "jp", "en")} == {"ok"}


def test_the_doctor_looks_at_the_transcript(tmp_path):
    cfg = with_absolute_paths(demo_config())
    data = replace(cfg.data, shards=str(tmp_path / "shards"))
    (good,) = needs.transcript(replace(cfg, data=data))
    assert (good.state, good.found) == ("ok", "54 of 54 lines can be used")
    (gone,) = needs.transcript(replace(cfg, data=replace(data, transcript="/no/esd.list")))
    assert gone.state == "FAIL"
    bad = tmp_path / "esd.list"
    bad.write_text("nothing\n", encoding="utf-8")
    (useless,) = needs.transcript(replace(cfg, data=replace(data, transcript=str(bad))))
    assert (useless.state, useless.found) == ("FAIL", "0 of 1 lines can be used")


def test_the_doctor_warns_of_what_will_be_slow_or_odd():
    (slow,) = fitness.full_size_without_gpu(Config(), [NO_GPU])
    assert (slow.state, list(fitness.full_size_without_gpu(Config(), [NODE]))) == ("warn", [])
    assert list(fitness.full_size_without_gpu(demo_config(), [NO_GPU])) == []
    assert fitness.locales([NODE]).state == "ok"
    other = fitness.locales([NODE, replace(NODE, encoding="iso8859-1")])
    assert (other.state, other.found) == ("warn", "iso8859-1 on 10.0.0.1")
    closed = replace(NODE, cache="/root/.cache", cache_error="Permission denied")
    assert [c.state for c in needs.room_for_models([NODE], 5)] == []
    assert [c.state for c in needs.room_for_models([closed], 0)] == ["warn"]
    assert [c.state for c in needs.room_for_models([closed], 5)] == ["FAIL"]


def test_a_model_on_a_hub_that_answers(monkeypatch, capsys):
    """The hub's answer is read as job.doctor shows it."""
    asked = {}

    class Api:
        endpoint = CLOSED

        def model_info(self, name, **options):
            asked.update(options, name=name)
            content = [("model.safetensors", 5), ("config.json", 1)]
            siblings = [json.loads(f'{{"rfilename": "{n}", "size": {s}}}') for n, s in content]
            return type("Info", (), {"siblings": [type("S", (), each)() for each in siblings]})()

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    found = find_model("model.slm.path", "microsoft/wavlm-base-plus", "v1")
    assert (found.where, found.size) == ("hub", 5)
    assert (asked["name"], asked["revision"]) == ("microsoft/wavlm-base-plus", "v1")

    # whoever loads it says so, before and after; no worker's log is open
    monkeypatch.setattr("data.models.log.handlers", [])
    monkeypatch.setattr(WavLMFeatures, "from_pretrained", lambda *_, **__: "loaded")
    assert load_slm(SlmConfig("microsoft/wavlm-base-plus", "v1"), 44100) == "loaded"
    before, after = capsys.readouterr().err.splitlines()
    assert before == "downloads microsoft/wavlm-base-plus, 0.0 MB"
    assert re.fullmatch(r"microsoft/wavlm-base-plus is downloaded, \d+ s", after)
    monkeypatch.setattr(time, "sleep", lambda _: None)  # its client tries again, ever later
    with pytest.raises(ValueError, match="the hub has not given it"):
        BertFeatures("hfl/a-bert")
    assert capsys.readouterr().err.splitlines() == ["downloads hfl/a-bert, 0.0 MB"]

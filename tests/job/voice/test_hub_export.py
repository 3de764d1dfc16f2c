"""A voice for the hub: its folder with a model card, its way there, and back as a voice."""

import base64
import json
import threading
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import sha256
from http.server import ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml
from huggingface_hub import HfApi

from data.plan.epoch_plan import Position
from job import export as export_command
from job import synthesize
from job.settings.cli import to_yaml
from job.voice.hub_card import scores_told
from tests.job.voices import tiny_checkpoint, tiny_voice_config
from tests.tiny import tiny_state
from tests.trainable.networks.tiny import randomise
from tests.trainable.weights.test_hub import COMMIT, Handler, Hub
from trainable.learning.judgement import Validation
from trainable.run.checkpoint import save_checkpoint
from trainable.run.format import CheckpointInfo

TOKEN = "hf_" + "not-a-real-one"
HELLO = ["--language", "EN", "--text", "Good morning."]


@dataclass
class WritableHub(Hub):
    """See `Hub`.

    Attributes:
        created: what was asked of repos/create.
        cards: texts of cards whose metadata was to be checked.
        parts: oid -> content of large files that were sent, and not yet committed.
        commits: number of commits.
    """

    created: list[dict] = field(default_factory=list)
    cards: list[str] = field(default_factory=list)
    parts: dict[str, bytes] = field(default_factory=dict)
    commits: int = 0


class WritableHandler(Handler):
    hub: WritableHub

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers["Content-Length"]))

    def say(self, content: dict, status: int = 200) -> None:
        self.reply(status, json.dumps(content).encode(), {"Content-Type": "application/json"}, True)

    def do_PUT(self):
        self.hub.parts[self.path.rpartition("/")[2]] = self.body()
        self.say({})

    def do_POST(self):
        body, hub = self.body(), self.hub
        if self.headers.get("Authorization") != f"Bearer {hub.token}":
            self.say({"error": "Invalid username or password."}, 401)
        elif self.path == "/api/repos/create":
            hub.created.append(json.loads(body))
            self.say({"url": f"{hub.address}/someone/voice"}, 409 if hub.created[1:] else 200)
        elif self.path == "/api/validate-yaml":
            hub.cards.append(json.loads(body)["content"])
            self.say({"errors": [], "warnings": []})
        elif self.path == "/api/models/someone/voice/preupload/main":
            files = [
                {"path": each["path"], "shouldIgnore": False, "uploadMode": mode(each["path"])}
                for each in json.loads(body)["files"]
            ]
            self.say({"files": files})
        elif self.path == "/someone/voice.git/info/lfs/objects/batch":
            objects = [
                {**each, "actions": {"upload": {"href": f"{hub.address}/parts/{each['oid']}"}}}
                for each in json.loads(body)["objects"]
            ]
            self.say({"transfer": "basic", "objects": objects})
        elif self.path == "/api/models/someone/voice/commit/main":
            self.commit([json.loads(line) for line in body.splitlines()])
        else:
            self.say({"error": "Not found"}, 404)

    def commit(self, lines: list[dict]) -> None:
        for value in (line["value"] for line in lines if line["key"] != "header"):
            held = self.hub.parts.get(value.get("oid", ""))
            self.hub.files[value["path"]] = held or base64.b64decode(value["content"])
        self.hub.commits += 1
        address = f"{self.hub.address}/someone/voice/commit/{COMMIT}"
        self.say({"commitUrl": address, "commitOid": COMMIT})


def mode(path: str) -> str:
    return "lfs" if path.endswith((".safetensors", ".wav")) else "regular"


class XetHandler(WritableHandler):
    """A hub whose large files go to Xet, the store behind it; their commit names them by digest."""

    def do_GET(self):
        if self.path.endswith("/xet-write-token/main"):
            self.say({"casUrl": self.hub.address, "accessToken": "x", "exp": 9_999_999_999})
        elif self.path.startswith("/v1/"):  # no chunk is there already
            self.say({}, 404)
        else:
            super().do_GET()

    def do_POST(self):
        if self.path.startswith("/v1/xorbs/"):
            self.hub.parts[self.path.rpartition("/")[2]] = self.body()
            self.say({"was_inserted": True})
        elif self.path == "/v1/shards":
            self.body()
            self.say({"result": 1})
        elif self.path.startswith(("/v1/", "/v2/")):  # what is newer
            self.body()
            self.say({}, 404)
        else:
            super().do_POST()

    def commit(self, lines: list[dict]) -> None:
        for line in lines:
            if line["key"] == "lfsFile":
                line["value"]["content"] = base64.b64encode(line["value"]["oid"].encode())
        super().commit(lines)


@pytest.fixture
def hub(request, tmp_path, monkeypatch):
    handler = getattr(request, "param", WritableHandler)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    by_git = handler is WritableHandler
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", by_git)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    made = WritableHub(token=TOKEN)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, hub=made))
    made.address = f"http://127.0.0.1:{server.server_port}"
    # as HF_ENDPOINT would, which is read when the library is imported
    for module in ("job.voice.hub_push", "trainable.weights.hub"):
        monkeypatch.setattr(f"{module}.HfApi", lambda endpoint=None: HfApi(made.address))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield made
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    tiny_checkpoint(folder)
    return folder / "run"


def exported(run: Path, out: Path, *more: str) -> int:
    argv = ["--checkpoint", str(run), "--format", "hub", "--out", str(out), *more]
    return export_command.main(argv)


def spoken(source: object, out: Path) -> np.ndarray:
    argv = ["--checkpoint", str(source), "--speaker", "en", *HELLO, "--out", str(out)]
    assert synthesize.main([*argv, "--device", "cpu"]) == 0
    return soundfile.read(out)[0]


@pytest.mark.medium
def test_a_voice_goes_to_the_hub_and_speaks_from_there(hub, run, tmp_path, capfd):
    out = tmp_path / "voice"
    asked = ["--push", "someone/voice", "--license", "cc-by-4.0", "--networks", "g"]
    assert exported(run, out, *asked) == 0
    told = "".join(capfd.readouterr())
    assert f"{hub.address}/someone/voice" in told
    assert TOKEN not in told
    here = {path.relative_to(out).as_posix(): path for path in out.rglob("*") if path.is_file()}
    assert {name: path.read_bytes() for name, path in here.items()} == hub.files
    assert (hub.commits, hub.created[0]["visibility"]) == (1, "private")
    assert hub.cards == [hub.files["README.md"].decode()]
    assert not any(TOKEN.encode() in content for content in hub.files.values())

    ours = spoken(run, tmp_path / "run.wav")
    assert np.array_equal(spoken("someone/voice", tmp_path / "x.wav"), ours)
    # a model that is there already is written to again
    assert exported(run, tmp_path / "again", *asked[:4], "--without-samples") == 0
    assert hub.commits == 2
    assert {"D_7.safetensors", "WD_7.safetensors", "DUR_7.safetensors"} < set(hub.files)


@pytest.mark.medium
@pytest.mark.parametrize("hub", [XetHandler], indirect=True)
def test_large_files_go_to_the_store_behind_the_hub(hub, run, tmp_path):
    out = tmp_path / "voice"
    assert exported(run, out, "--push", "someone/voice", "--networks", "g") == 0
    assert hub.commits == 1
    for path in out.rglob("*"):
        if path.is_file():
            name, content = path.relative_to(out).as_posix(), path.read_bytes()
            sent = sha256(content).hexdigest().encode() if mode(name) == "lfs" else content
            assert hub.files[name] == sent, name
    # chunks are deduplicated and packed, so that no file is there as it is
    assert sum(map(len, hub.parts.values())) > 0.5 * (out / "G_7.safetensors").stat().st_size


@pytest.mark.medium
def test_the_card_tells_what_a_listener_asks(tmp_path, capsys):
    cfg = tiny_voice_config(tmp_path)
    sentences = {"EN": "Is this | my own sentence?"}
    cfg = replace(cfg, eval=replace(cfg.eval, sentences=sentences))
    state = tiny_state(cfg)
    randomise(state.nets["g"], 0.05)
    state.position = Position(1234, 5, 0)
    (tmp_path / "c").mkdir()
    info = CheckpointInfo(
        state.position, "", "", {}, {"b|b": 2, "anna": 0}, 1, scores={"eval/mel": 0.5}
    )
    save_checkpoint(tmp_path / "c", state, info, to_yaml(cfg))
    assert exported(tmp_path / "c", tmp_path / "out") == 0
    assert "states no licence: give --license" in capsys.readouterr().out
    card = (tmp_path / "out/README.md").read_text(encoding="utf-8")
    metadata = yaml.safe_load(card.split("---")[1])
    assert metadata == {
        "license": "unknown",
        "language": ["zh", "ja", "en"],
        "pipeline_tag": "text-to-speech",
        "tags": ["bert-vits2"],
    }
    assert "Trained for 1,234 steps, 5 epochs" in card
    assert "| anna | 0 |" in card
    assert "| b\\|b | 2 |" in card
    assert "| eval/mel | 0.5 |" in card
    assert "[EN, anna](samples/EN.wav): Is this | my own sentence?" in card
    for language in ("ZH", "JP", "EN"):
        wave, rate = soundfile.read(tmp_path / f"out/samples/{language}.wav")
        assert (rate, len(wave) > 1000) == (cfg.data.sampling_rate, True)
    assert not list((tmp_path / "out").glob("*.optimizer.safetensors"))


@pytest.mark.medium
def test_samples_that_cannot_be_spoken_may_be_left_out(tmp_path):
    cfg = tiny_voice_config(tmp_path)
    nowhere = replace(cfg.data.bert, zh=str(tmp_path / "nowhere"))
    cfg = replace(cfg, data=replace(cfg.data, bert=nowhere))
    (tmp_path / "c").mkdir()
    info = CheckpointInfo(Position(), "", "", {}, {"anna": 0}, 1)
    save_checkpoint(tmp_path / "c", tiny_state(cfg), info, to_yaml(cfg))
    with pytest.raises(ValueError, match=r"nowhere is no folder, .*--without-samples leaves them"):
        exported(tmp_path / "c", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert exported(tmp_path / "c", tmp_path / "out", "--without-samples") == 0
    assert "Samples" not in (tmp_path / "out/README.md").read_text(encoding="utf-8")


def test_a_card_without_a_validation_tells_the_last_one(tmp_path):
    info = CheckpointInfo(Position(9, 0, 9), "", "", {}, {}, 1)
    assert list(scores_told(info))[1:] == ["None are known."]
    info = replace(info, validations=(Validation(4, 0.7, 0.7, 0.6),))
    assert list(scores_told(info))[1:] == ["eval/mel 0.7 at step 4."]


@pytest.mark.medium
def test_a_push_that_the_hub_refuses_leaves_the_files(hub, run, tmp_path, capfd):
    hub.token = "another"
    with pytest.raises(ValueError, match=r"--push someone/voice: http.* HF_TOKEN must be") as told:
        exported(run, tmp_path / "out", "--push", "someone/voice", "--without-samples")
    assert f"The files are in {tmp_path / 'out'}: `hf upload someone/voice" in str(told.value)
    assert (tmp_path / "out/README.md").exists()
    assert TOKEN not in str(told.value) + "".join(capfd.readouterr())


@pytest.mark.medium
def test_a_hub_that_does_not_answer_is_no_mistake_of_the_user(hub, run, tmp_path, monkeypatch):
    monkeypatch.setattr("job.voice.hub_push.HfApi", lambda: HfApi("http://127.0.0.1:9"))
    with pytest.raises(OSError, match=r"--push someone/voice: http://127\.0\.0\.1:9 has not taken"):
        exported(run, tmp_path / "out", "--push", "someone/voice", "--without-samples")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--push", "voice"], r"--push is voice: give USER/MODEL"),
        (["--push", "a/b@v2"], r"--push is a/b@v2: give USER/MODEL"),
        (["--push", "a/b"], r"--push a/b needs an access token that may write: set HF_TOKEN"),
        (["--license", "My own!"], r"--license is 'My own!': give the hub's name of it"),
        (["--format", "onnx", "--push", "a/b"], r"--push is of --format hub"),
        (["--format", "sbv2", "--license", "mit"], r"--license is of --format hub"),
        (["--format", "reference", "--without-samples"], r"--without-samples is of --format hub"),
    ],
)
def test_options_that_cannot_be_are_refused_first(options, message, run, tmp_path, monkeypatch):
    monkeypatch.setattr("job.voice.hub_push.get_token", lambda: None)
    with pytest.raises(ValueError, match=message):
        exported(run, tmp_path / "out", *options)
    assert not (tmp_path / "out").exists()


@pytest.mark.medium
@pytest.mark.parametrize("form", ["safetensors", "reference"])
def test_a_voice_in_half_precision_says_the_same(tmp_path, form, capsys):
    checkpoint = tiny_checkpoint(tmp_path)
    sizes, waves = [], []
    for name, options in (("whole", ["--without-optimizer"]), ("half", ["--half"])):
        argv = ["--checkpoint", str(checkpoint), "--out", str(tmp_path / name), "--format", form]
        assert export_command.main([*argv, *options, "--networks", "g"]) == 0
        (weights,) = (tmp_path / name).glob("G_7.*")
        sizes.append(weights.stat().st_size)
        argv = ["--checkpoint", str(tmp_path / name), "--speaker", "en", "--sdp-ratio", "0", *HELLO]
        assert synthesize.main([*argv, "--out", str(tmp_path / f"{name}.wav")]) == 0
        waves.append(soundfile.read(tmp_path / f"{name}.wav")[0])
    assert 0.45 < sizes[1] / sizes[0] < 0.6
    assert sorted(path.name for path in (tmp_path / "half").iterdir())[1:] == ["config.json"]
    assert len(waves[0]) == len(waves[1])
    assert np.corrcoef(*waves)[0, 1] > 0.99


def test_half_precision_is_for_weights_alone(tmp_path):
    argv = ["--checkpoint", "runs/x", "--out", str(tmp_path), "--format", "onnx", "--half"]
    with pytest.raises(ValueError, match="--half is not of --format onnx: leave it out"):
        export_command.main(argv)

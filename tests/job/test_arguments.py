"""Wrong arguments of every command: one line, status 2, no traceback, and nothing is written."""

import argparse
import importlib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ray
from ray.job_submission import JobSubmissionClient

from job.voice.voice import Voice
from tests.job.voices import tiny_checkpoint

PLACES = (
    "",
    "C:\\voice\\x.wav",
    "\\\\server\\x.wav",
    "~nobody_here/x.wav",
    "s3:/bucket/x.wav",
    "file://x.wav",
    "nowhere://x/y.wav",
    "http://127.0.0.1/x.wav",
    "/dev/null/x.wav",
    "a\0b.wav",
)
NUMBERS = ("", "x", "nan", "inf", "-inf", "-1", "1e999", "0x10", "1,5", "-" + 30 * "9")
WORDS = ("", "nope", "-", "中文", "a\nb", " ")
NAMES = (
    "",
    "a\nb",
    ".",
    "..",
    "a/b",
    "/a",
    "a ",
    " a",
    "best",
    "checkpoint_5",
    "a\0",
    "a\x1b[0m",
    "\u202eevil",
    "我" * 86,
    "x" * 256,
    "a\\b",
    "checkpoint_000000010",
)
PATHS = ("run.storage", "data.shards", "data.transcript", "data.audio_root", "train.init_from")
CONFIGURED = ("job.prepare", "job.train", "job.doctor", "tuning.sweep")
# whatever they are, they may be right; or they are looked for after the networks
OTHERS = {"help", "address", "node_ip", "shards", "now"}
# as good as other values
TAKEN = {"--seed=-1"}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("voice"))


@pytest.fixture(autouse=True)
def reaches_nothing(monkeypatch, tmp_path):
    """Whoever gets as far as Ray or the networks fails; the working directory is empty."""

    def reached(*_: object, **__: object) -> None:
        raise AssertionError("the arguments were not refused")

    monkeypatch.setattr(ray, "init", reached)
    monkeypatch.setattr(JobSubmissionClient, "submit_job", reached)
    monkeypatch.setattr(Voice, "load", reached)
    for module in ("job.evaluate", "job.export"):
        for name in ("load_generator", "export"):
            monkeypatch.setattr(f"{module}.{name}", reached, raising=False)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


def whole(command: str, checkpoint: Path) -> list[str]:
    """Arguments that a command takes: with one more mistake, that mistake is what it refuses."""
    run = ["--checkpoint", str(checkpoint)]
    speech = ["--text", "a", "--language", "EN", "--speaker", "en", "--device", "cpu"]
    return {
        "synthesize": [*run, *speech, "--out", "x.wav"],
        "evaluate": [*run, "--device", "cpu"],
        "export": [*run, "--out", "x"],
        "spot": [],
    }[command]


def mistakes(action: argparse.Action) -> Iterator[list[str]]:
    """Yield wrong ways to give an option."""
    option = action.option_strings[0]
    if action.nargs == 0:
        yield [f"{option}=x"]
    elif action.choices is not None:
        yield from ([option, word] for word in WORDS)
    elif action.type is not None:
        yield from (
            [f"{option}={number}"] for number in NUMBERS if f"{option}={number}" not in TAKEN
        )
    elif action.dest in ("out", "checkpoint", "lines", "shards"):
        yield from ([f"{option}={place}"] for place in PLACES)
    elif action.dest == "device":
        yield from ([option, word] for word in (*WORDS, "cuda:99", "cuda:-1", "mps", "meta", "CPU"))
    if action.nargs != 0:
        yield [option]
    yield [option[:-1], "1"]  # an abbreviation
    yield [f"{option}s", "1"]


def without(dest: str, argv: list[str]) -> list[str]:
    """Return arguments without the text, for options that exclude it."""
    return [word for word in argv if dest not in ("text", "lines") or word not in ("--text", "a")]


def refused(call: Callable, module: str, argv: list[str]) -> str:
    """Return the one line by which a command refuses its arguments."""
    done: subprocess.CompletedProcess = call(module, *argv)
    told = f"{module} {argv}: {done.returncode} {done.stdout} {done.stderr}"
    assert done.returncode == 2, told
    lines = done.stderr.splitlines()
    assert len(lines) == 1, told
    assert lines[0].startswith("error: "), told
    assert list(Path.cwd().iterdir()) == [], told
    return lines[0]


@pytest.mark.medium
@pytest.mark.parametrize(
    ("command", "least"), {"evaluate": 60, "export": 40, "synthesize": 150, "spot": 40}.items()
)
def test_wrong_options(call, checkpoint, command, least):
    given = whole(command, checkpoint)
    tried = 0
    for action in importlib.import_module(f"job.{command}").command_line()._actions:
        if action.dest in OTHERS or action.help == argparse.SUPPRESS:
            continue
        for mistake in mistakes(action):
            line = refused(call, f"job.{command}", [*without(action.dest, given), *mistake])
            # by its name, or that of the field that it sets; a checkpoint's place by itself
            option, _, value = mistake[0].partition("=")
            names = (action.option_strings[0], option, action.dest, value or option)
            assert any(name in line for name in names) or action.dest == "checkpoint", (
                mistake,
                line,
            )
            tried += 1
    assert tried >= least


@pytest.mark.medium
@pytest.mark.parametrize("module", CONFIGURED)
def test_wrong_configurations(call, module, tmp_path):
    files = {
        "list.yaml": b"[1, 2]",
        "word.yaml": b"word",
        "tab.yaml": b"train:\n\tseed: 1",
        "gbk.yaml": "run: {name: 我}".encode("gbk"),
        "utf16.yaml": "run: {name: a}".encode("utf-16"),
        "binary.yaml": bytes(range(256)),
        "deep.yaml": b"[" * 3000,
        "unknown.yaml": b"nothing: {at: all}",
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    wrong = [
        ["--config", str(tmp_path / name)] for name in (*files, "missing.yaml", ".", "list.yaml/x")
    ]
    places = [place for place in PLACES if place and "http" not in place]  # which is asked again
    wrong += [[f"--{key}={places[0]}"] for key in PATHS]
    if module == "job.train":
        wrong += [[f"--run.storage={place}"] for place in places]
    else:  # all have the same parser
        wrong = wrong[::3]
    wrong += [
        ["--run.storage=https://127.0.0.1/x"],
        ["--config"],
        ["--train.sed", "1"],
        ["--train", "5"],
        ["--confg", "x"],
        ["word"],
        ["--"],
    ]
    wrong += [["--train.max_steps"], ["--run.nam", "x"], ["--train.max_step=1"], ["-x"], ["--=1"]]
    # the sweep's own options, and what it needs
    space = ["--space", "loss_weights"] if module == "tuning.sweep" else []
    for argv in wrong:
        line = refused(call, module, [*argv, *space])
        assert len(line) < 600


@pytest.mark.parametrize("name", NAMES)
def test_wrong_names_of_runs(call, name):
    assert "run.name" in refused(call, "job.train", [f"--run.name={name}"])


def test_wrong_names_of_sweeps(call):
    """Names that are right for a run, but not for the folders of a sweep, which are longer."""
    for name in ("best", "x" * 250):
        argv = [f"--run.name={name}", "--space", "loss_weights", "--model.slm.path", "random"]
        assert "run.name" in refused(call, "tuning.sweep", argv)


@pytest.mark.parametrize("place", [*PLACES, "nowhere", "."])
def test_wrong_places(call, place, tmp_path):
    config = tmp_path / "config.json"
    config.write_text("[" * 100_000)
    refused(call, "job.runs", [place])
    refused(call, "job.convert_config", [place, "--out", "x.yaml"])
    refused(call, "job.convert_config", [str(config), "--out", place])


@pytest.mark.parametrize(
    ("module", "argv", "told"),
    [
        ("job.runs", [], "storage"),
        ("job.runs", ["a", "b"], "b"),
        ("job.runs", ["a", "--all"], "--all"),
        ("job.convert_config", ["--out", "x"], "config"),
        ("job.convert_config", ["a"], "--out"),
        ("job.convert_config", ["a", "--ou", "x"], "--out"),
        ("job.submit", [], "module"),
        ("job.submit", ["--addres", "x"], "--address"),
        ("job.submit", ["--address"], "--address"),
        ("job.submit", ["--address", "http://127.0.0.1:9", "job.train"], "127.0.0.1:9"),
        ("job.submit", ["--address", "nowhere://x", "job.train"], "nowhere"),
        ("job.submit", ["--address", "", "job.train"], "--address"),
        ("job.submit", ["--address", "http://127.0.0.1:9", "job.trian"], "job.train"),
        ("job.submit", ["--address", "http://127.0.0.1:9", "train.py"], "train.py"),
    ],
)
def test_words_that_are_missing_or_too_many(call, module, argv, told):
    assert told in refused(call, module, argv)


@pytest.mark.parametrize(
    ("argv", "meant"),
    [
        (["--sdp", "1"], "did you mean --sdp-ratio?"),
        (["--noise", "1"], "did you mean --noise-scale or --noise-scale-w?"),
        (["--lenght-scale", "1"], "did you mean --length-scale?"),
        (["--zzz"], "--zzz is no option of this command"),
    ],
)
def test_the_option_that_is_meant_is_told(call, checkpoint, argv, meant):
    line = refused(call, "job.synthesize", [*whole("synthesize", checkpoint), *argv])
    assert meant in line
    assert "sdp_ratio" not in line

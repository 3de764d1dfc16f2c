"""Commands in a locale whose encoding is not UTF-8 read and write the same files as elsewhere."""

import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile

from tests.job.conftest import Command, arguments
from tests.job.voices import tiny_checkpoint
from tests.test_house import ROOT

LOCALES = {"zh_CN.GBK": ("zh_CN", "GBK"), "de_DE.ISO-8859-1": ("de_DE", "ISO-8859-1")}
NAME = "我的声音"


@pytest.fixture(scope="module", params=LOCALES)
def env(request, tmp_path_factory) -> dict[str, str]:
    """Variables by which a process has this locale, which is made here."""
    if shutil.which("localedef") is None:
        pytest.skip("no localedef: .ci/run installs it")
    folder = tmp_path_factory.mktemp("locales")
    source, charmap = LOCALES[request.param]
    made = subprocess.run(
        ["localedef", "-i", source, "-f", charmap, str(folder / request.param)],
        capture_output=True,
        encoding="utf-8",
        errors="replace",
    )
    if not (folder / request.param).is_dir():
        pytest.skip(f"localedef cannot make it: {made.stderr}")
    # neither of Python's own ways to UTF-8
    off = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    # one thread, as two spin while they wait for each other
    return off | {"LOCPATH": str(folder), "LC_ALL": request.param, "OMP_NUM_THREADS": "1"}


def encoding_of(env: dict[str, str]) -> str:
    """The encoding that a process takes for text by default."""
    code = "import locale; print(locale.getpreferredencoding(False))"
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, check=True)
    return done.stdout.decode().strip()


@pytest.mark.processes
def test_a_voice_speaks_in_any_locale(env, tmp_path):
    """The fast guard: configuration, front ends and models are read, names and errors shown."""
    env = os.environ | env
    assert "utf" not in encoding_of(env).lower()
    # a name that is no UTF-8, as one that was typed in such a locale
    folder = tmp_path / os.fsdecode("声".encode("gbk"))
    made = tiny_checkpoint(tmp_path)
    checkpoint = shutil.copytree(made, folder / made.name)
    lines = folder / "lines.jsonl"
    texts = ('{"text": "[ZH]你好。", "id": "zh"}', '{"text": "[JP]はい。", "speaker": "声👩‍🎤"}')
    lines.write_text("\n".join(texts), encoding="utf-8")
    words = ["--checkpoint", checkpoint, "--speaker", "zh", "--device", "cpu"]
    words += ["--lines", lines, "--out", folder / "out"]
    argv = [sys.executable, "-m", "job.synthesize", *map(str, words)]
    done = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True)
    assert done.returncode == 1, done.stderr
    errors = [line for line in done.stderr.splitlines() if line]
    assert len(errors) == 1, done.stderr
    assert b":2: no speaker" in errors[0]
    assert soundfile.info(io.BytesIO((folder / "out/zh.wav").read_bytes())).frames > 0


@pytest.mark.slow
def test_a_run_in_any_locale(command: Command, environment, env, tmp_path):
    """prepare, train, resume, list, speak: the whole way, with a name that the locale may lack."""
    here = Command(environment | env)
    storage = tmp_path / "runs"
    config = tmp_path / "config.yaml"
    config.write_text(f"run: {{name: {NAME}}}\n", encoding="utf-8")
    named = (
        ["--config", str(config)] if encoding_of(here.env) == "GBK" else ["--run.name", "Stimme"]
    )
    done = here("job.prepare", *arguments(tmp_path / "shards", storage))
    assert done.returncode == 0, done.stderr[-3000:]
    for steps in (2, 4):
        options = {"train__max_steps": steps, "train__checkpoint__every_steps": 2}
        done = here("job.train", *arguments(tmp_path / "shards", storage, **options), *named)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    run = next(storage.iterdir())
    # folders have their names in the locale's encoding, as all others that its users make
    name = os.fsencode(run.name).decode(encoding_of(here.env))
    assert name == (NAME if named[0] == "--config" else "Stimme")
    assert "resumes at step 2" in Path(run, "logs/rank-0.log").read_text(encoding="utf-8")
    assert here("job.runs", str(storage)).returncode == 0
    out = tmp_path / "x.ogg"
    said = ["--text", "Hello.", "--language", "EN", "--speaker", "zh_f1", "--out", str(out)]
    done = here("job.synthesize", "--checkpoint", str(run), *said)
    assert done.returncode == 0, done.stderr[-3000:]
    assert soundfile.info(out).subtype == "VORBIS"

"""What strangers may hand us (checkpoints, configurations, manifests, transcripts) runs no code."""

import ast
import hashlib
import json
import os
import re
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from data.corpus.transcript import parse_transcript
from data.files import has_credentials, stays_below
from data.plan.epoch_plan import Position
from data.shards.manifest import ManifestError, read_manifest
from data.stream.spec import StreamSpec
from job.settings.cli import config_of, read_config
from job.settings.config import Config, RunSettings
from job.settings.paths import run_folder
from job.train import main
from tests.data.stream.corpus import make_corpus
from tests.test_house import PACKAGES, ROOT
from tests.tiny import tiny_config, tiny_state
from trainable.run.checkpoint import load_checkpoint, save_checkpoint
from trainable.run.format import CheckpointError, CheckpointInfo

FOLDERS = (*PACKAGES, "tools")
SOURCES = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
# one names the error of torch's own unpickler; the other reads a file of cmudict with an
# unpickler of strings alone
EXCUSED = {
    "trainable/run/tensor_files.py": ["import pickle"],
    "tools/make_english_words.py": ["import pickle", "class DataOnly(pickle.Unpickler):"],
}
# what runs code, and the rules of pyproject.toml that see it
RUNS_CODE = {
    "import pickle": {"TID251"},
    "import cPickle": {"TID251"},
    "import dill": {"TID251"},
    "import cloudpickle": {"TID251"},
    "import joblib": {"TID251"},
    "import shelve": {"TID251"},
    "import marshal": {"TID251"},
    "import dill.source as innocent": {"TID251"},
    "from pickle import UnpicklingError": {"TID251"},
    "from pickle import loads": {"TID251"},
    "import pickle  # noqa: TID251\nload = pickle.loads": {"TID251"},
    "import pickle  # noqa: TID251\npickle.load(file)": {"TID251", "S301"},
    "import pickle  # noqa: TID251\npickle.Unpickler(file)": {"TID251", "S301"},
    "import pandas as pd\npd.read_pickle(file)": {"TID251", "S301"},
    "import pandas\npandas.read_pickle(file)": {"TID251", "S301"},
    "import yaml\nyaml.load(text, Loader=yaml.SafeLoader)": {"TID251"},
    "import yaml\nyaml.load(text)": {"TID251", "S506"},
    "import yaml\nyaml.load_all(text)": {"TID251"},
    "import yaml\nyaml.full_load(text)": {"TID251"},
    "import yaml\nyaml.unsafe_load(text)": {"TID251"},
    "eval(text)": {"S307"},
    "exec(text)": {"S102"},
    "import subprocess\nsubprocess.run(text, shell=True)": {"S602"},
    "import os\nos.system(text)": {"S605"},
}


def ruff(*argv: str | Path, source: str = "") -> list[dict]:
    """Return ruff's findings of its security rules and banned names, with our settings."""
    program = Path(sys.executable).with_name("ruff")
    done = subprocess.run(
        [program, "check", "--no-cache", "--output-format", "json", *argv],
        cwd=ROOT,
        input=source,
        capture_output=True,
        text=True,
    )
    assert done.returncode in (0, 1), done.stderr
    return [one for one in json.loads(done.stdout) if re.match(r"S\d|TID", one["code"])]


@pytest.mark.processes
def test_nothing_unpickles():
    found = ruff(*FOLDERS)
    assert not [f"{one['filename']}:{one['location']['row']} {one['message']}" for one in found]


@pytest.mark.processes
def test_what_runs_code_would_be_found():
    for source, rules in RUNS_CODE.items():
        found = ruff("--stdin-filename", "data/new_module.py", "-", source=f"{source}\n")
        assert {one["code"] for one in found} == rules, source
    for folder in FOLDERS:
        assert ruff("--stdin-filename", f"{folder}/new_module.py", "-", source="eval(text)\n")


def test_nobody_else_is_excused_from_these_rules():
    """A line that is excused, or a comment that excuses a whole file, is one of those above."""
    excused: dict[str, list[str]] = {}
    for path in SOURCES:
        for line in path.read_text().splitlines():
            code, _, comment = line.partition("#")
            if re.search(r"noqa(?!:)|noqa:.*\b(S\d|TID)", comment):
                excused.setdefault(path.relative_to(ROOT).as_posix(), []).append(code.strip())
    assert excused == EXCUSED
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]["lint"]
    assert list(settings["per-file-ignores"]) == ["tests/**"]


def unsafe_loads(source: str) -> list[str]:
    """Return calls of torch.load and numpy.load that might unpickle; ruff has no rule for them."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name, call = ast.unparse(node.func), ast.unparse(node)
        options = {k.arg: ast.unparse(k.value) for k in node.keywords}
        if name == "torch.load" and options.get("weights_only") != "True":
            found.append(call)
        if name in ("np.load", "numpy.load") and options.get("allow_pickle", "False") not in (
            "False",
            "None",
        ):
            found.append(call)
    return found


@pytest.mark.medium
def test_no_tensor_file_is_read_with_its_code():
    found = {path.relative_to(ROOT).as_posix(): unsafe_loads(path.read_text()) for path in SOURCES}
    assert not {path: calls for path, calls in found.items() if calls}


def test_a_tensor_file_read_with_its_code_would_be_found():
    good = "torch.load(p, weights_only=True)\nnp.load(p)\nnumpy.load(p, allow_pickle=False)"
    bad = "torch.load(p)\ntorch.load(p, weights_only=False)\nnp.load(p, allow_pickle=True)"
    assert unsafe_loads(good) == []
    assert unsafe_loads(bad) == bad.splitlines()


class Malice:
    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


def test_a_checkpoint_that_holds_code_is_refused_and_not_run(tmp_path):
    cfg, target = tiny_config(), tmp_path / "pwned"
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    state = tiny_state(cfg)
    save_checkpoint(folder, state, CheckpointInfo(Position(), "d", "c", {}, {}, 1), "run: {}\n")
    torch.save({"moments": Malice(target)}, folder / "training.pt")
    sums = json.loads((folder / "checksums.json").read_text())
    sums["training.pt"] = hashlib.sha256((folder / "training.pt").read_bytes()).hexdigest()
    (folder / "checksums.json").write_text(json.dumps(sums))
    with pytest.raises(
        CheckpointError, match=r"training\.pt is refused: it holds pickled code \(posix\.mkdir\)"
    ):
        load_checkpoint(folder, state)
    assert not target.exists()


@pytest.mark.parametrize("section", ["run", "run: {name", "data: {plan: {max_frames"])
def test_yaml_that_asks_for_code_is_refused_and_not_run(tmp_path, section):
    target, file = tmp_path / "pwned", tmp_path / "config.yaml"
    closing = "}" * section.count("{")
    file.write_text(f'{section}: !!python/object/apply:os.mkdir ["{target}"]{closing}\n')
    with pytest.raises(ValueError, match=r"config\.yaml"):
        read_config(file)
    assert not target.exists()


@pytest.mark.parametrize(
    "name", ["..", ".", "", "../other", "a/b", "/tmp/a", "a\\b", "a\nb", "a\0b"]
)
def test_a_runs_name_stays_in_its_storage(name):
    with pytest.raises(ValueError, match=r"run\.name"):
        run_folder(Config(run=RunSettings(name, "runs")))
    assert (
        run_folder(Config(run=RunSettings("Stimme 1.2-声", "s3://bucket/runs/")))
        == "s3://bucket/runs/Stimme 1.2-声"
    )


def test_job_train_refuses_such_a_name_before_anything_is_written(tmp_path):
    argv = [
        "--run.name",
        "../out",
        "--run.storage",
        str(tmp_path / "runs"),
        "--data.shards",
        str(tmp_path / "no"),
    ]
    with pytest.raises(ValueError, match=r"run\.name"):
        main(argv)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "shard", ["../x.parquet", "/etc/passwd", "shards/../../x", "shards//x", "s3://b/x", ""]
)
def test_a_manifest_names_no_shard_elsewhere(tmp_path, shard):
    assert not stays_below(shard)
    spec: StreamSpec = make_corpus(str(tmp_path))
    path = tmp_path / "manifest.parquet"
    table = pq.read_table(path)
    names = pa.array([shard, *table.column("shard").to_pylist()[1:]])
    pq.write_table(table.set_column(table.column_names.index("shard"), "shard", names), path)
    with pytest.raises(ManifestError, match="lies elsewhere"):
        read_manifest(spec.data.shards)


SECRET = "hunter2hunter2"
KEYS = ("run.storage", "data.shards", "data.bert.zh", "model.slm.path", "train.init_from")
WITH_SECRETS = [
    f"s3://AKIAKEY:{SECRET}@bucket/runs",
    f"https://user:{SECRET}@host/a.wav",
    f"https://{SECRET}@host/a.wav",
    f"s3://AKIAKEY:ab/{SECRET}@bucket",
    f"simplecache::s3://AKIAKEY:{SECRET}@bucket/runs",
    f"s3://bucket/runs?secret_key={SECRET}",
    f"https://host/a.wav?X-Amz-Signature={SECRET}",
    f"https://host/a.wav?key={SECRET}",
    f"sftp://user:{SECRET}@host/x",
]


@pytest.mark.parametrize("uri", WITH_SECRETS)
def test_uris_with_passwords_are_refused_by_key_alone(uri, tmp_path):
    assert has_credentials(uri)
    key = KEYS[WITH_SECRETS.index(uri) % len(KEYS)]
    with pytest.raises(ValueError, match=key) as caught:
        config_of([f"--{key}", uri])
    assert SECRET not in str(caught.value)
    (tmp_path / "mine.yaml").write_text(json.dumps({"data": {"transcript": uri}}))
    with pytest.raises(ValueError, match=r"data\.transcript"):
        read_config(tmp_path / "mine.yaml")
    with pytest.raises(ValueError, match=r"some\.list:2") as caught:
        parse_transcript("some.list", f"a.wav|anna|EN|Hello.\n{uri}|anna|EN|Hello.".encode())
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "uri",
    [
        "s3://bucket/a@b/c.wav",
        "http://host:9000/a@b.wav",
        "http://host:9000",
        "hdfs://user@node/x",
        "user/model@v1",
        "gs://bucket/monkey/key.wav",
        "s3://bucket/x?endpoint_override=http://host:9000&region=eu",
        "runs",
        "/a:b@c",
    ],
)
def test_other_uris_are_taken(uri):
    assert not has_credentials(uri)
    read = config_of(["--data.shards", uri])
    assert read == replace(Config(), data=replace(read.data, shards=uri))

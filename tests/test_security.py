"""What strangers may hand us: checkpoints, configurations, manifests, transcripts; none of it runs code or leaves."""

import ast
import hashlib
import json
import os
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
from data.stream.pipeline import StreamSpec
from job.settings.cli import parse, parser, read_config
from job.settings.config import Config, RunConfig
from job.settings.paths import run_folder
from job.train import main
from tests.data.stream.test_pipeline import make_corpus
from tests.test_house import PACKAGES, ROOT
from tests.tiny import tiny_config, tiny_state
from trainable.run.checkpoint import load_checkpoint, save_checkpoint
from trainable.run.format import CheckpointError, CheckpointInfo

SOURCES = [
    path for package in (*PACKAGES, "tools") for path in sorted((ROOT / package).rglob("*.py"))
]
UNSAFE = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
# the one names the error of torch's own unpickler; the other reads a file of cmudict with an
# unpickler of strings alone
NO_LOAD = {
    "trainable/weights/published.py": {"UnpicklingError"},
    "tools/make_english_words.py": {"Unpickler", "UnpicklingError"},
}


def calls(tree: ast.AST) -> list[tuple[str, ast.Call]]:
    return [(ast.unparse(node.func), node) for node in ast.walk(tree) if isinstance(node, ast.Call)]


def keyword(call: ast.Call, name: str) -> object:
    return next((ast.literal_eval(k.value) for k in call.keywords if k.arg == name), None)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_nothing_unpickles(path):
    tree = ast.parse(path.read_text())
    allowed = NO_LOAD.get(path.relative_to(ROOT).as_posix(), set())
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert (node.module or "").split(".")[0] not in UNSAFE
        if isinstance(node, ast.Import) and not allowed:
            assert not UNSAFE & {name.name.split(".")[0] for name in node.names}
        if (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id in UNSAFE
        ):
            assert node.attr in allowed
    for name, call in calls(tree):
        if name == "torch.load":
            assert keyword(call, "weights_only") is True
        assert (
            keyword(call, "allow_pickle") in (None, False)
            if name in ("np.load", "numpy.load")
            else True
        )
        assert name not in (
            "yaml.load",
            "yaml.unsafe_load",
            "yaml.full_load",
            "yaml.load_all",
            "eval",
            "exec",
        )
        assert name not in ("pd.read_pickle", "pandas.read_pickle")


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
        run_folder(Config(run=RunConfig(name, "runs")))
    assert (
        run_folder(Config(run=RunConfig("Stimme 1.2-声", "s3://bucket/runs/")))
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
        parse(parser("test", ""), [f"--{key}", uri])
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
    read = parse(parser("test", ""), ["--data.shards", uri])[0]
    assert read == replace(Config(), data=replace(read.data, shards=uri))

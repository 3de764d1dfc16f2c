"""Jobs on a `ray start --head` cluster: what is uploaded, shown, and outlives the terminal."""

import csv
import json
import os
import re
import shlex
import shutil
import signal
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from ray._private.runtime_env.packaging import create_package
from ray.job_submission import JobStatus

from job.submit.client import connect
from job.submit.command import main
from tests.job.conftest import DEMO, arguments, metrics
from tests.job.reports.terminal import GOLDEN, RECORDED, terminal
from tests.test_house import PACKAGES, ROOT, tracked
from tools.local_cluster import LocalCluster

UPLOAD_BYTES = 32 * 2**20  # dictionaries, the demo corpus, the small voice; Ray takes 100 MiB


class Client:
    """Stands in for Ray's client of a cluster: takes a job, and keeps what it was given."""

    def __init__(self, error: Exception | None = None):
        self.error = error
        self.files: dict[str, bytes] = {}
        self.given: dict = {}

    def submit_job(self, **given: object) -> str:
        if self.error is not None:
            raise self.error
        self.given = given
        folder = Path(given["runtime_env"]["working_dir"])
        self.files = {
            p.relative_to(folder).as_posix(): p.read_bytes()
            for p in folder.rglob("*")
            if p.is_file()
        }
        return str(given.get("submission_id", "job"))

    async def tail_job_logs(self, job: str):
        yield "a line\n"

    def get_job_status(self, job: str) -> JobStatus:
        return JobStatus.SUCCEEDED


@pytest.fixture
def client(monkeypatch) -> Client:
    made = Client()
    monkeypatch.setattr("job.submit.command.connect", lambda address: made)
    return made


@pytest.mark.processes
def test_the_upload_is_small_and_whole(client, tmp_path):
    """Code, presets, dictionaries and the demo corpus, and nothing else; .rayignore says so too."""
    assert main(["--", "job.train"]) == 0
    names = set(client.files)
    for package_name in PACKAGES:
        sources = {p.relative_to(ROOT).as_posix() for p in (ROOT / package_name).rglob("*.py")}
        assert sources <= names
    of_packages = {name for name in tracked() if name.partition("/")[0] in PACKAGES}
    assert of_packages <= names
    assert "requirements.lock" in names  # job.doctor compares with it
    package = tmp_path / "package.zip"
    create_package(str(ROOT), package, include_gitignore=True, excludes=[])
    assert package.stat().st_size < UPLOAD_BYTES
    packed = zipfile.ZipFile(package).namelist()
    assert {name for name in packed if not name.endswith("/")} == names


LEFT_AT_HOME = [
    *(".env", "secrets.json", "id_rsa", "credentials", "notes.txt", "code.zip", "a.tar.gz", "b.7z"),
    *(
        "G_0.pth",
        "D_0.PT",
        "m.safetensors",
        "m.onnx",
        "m.bin",
        "m.ckpt",
        "m.gguf",
        "x.pkl",
        "x.npy",
    ),
    *("a.wav", "a.WAV", "a.m4a", "a.opus", "a.Flac", "a.aac", "a.mp4", "a.parquet", "list.list"),
]


def test_what_lies_beside_the_code_stays_at_home(client, monkeypatch, tmp_path):
    folders = [
        *("", "models/", "venv/", ".git/", "job/", "job/presets/", "job/presets/demo_corpus/"),
        *("data/", "data/text/", "data/text/chinese/", "tuning/spaces/", "job/.cache/", "runs/x/"),
    ]
    wanted = {"job/train.py", "data/text/front_end.py", "job/presets/own.yaml"}
    unwanted = {folder + name for folder in folders for name in LEFT_AT_HOME}
    unwanted |= {"venv/lib/x.py", "job/.cache/x.py", ".git/config", "own.yaml", "tests/test_a.py"}
    for name in wanted | unwanted:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.setattr("job.submit.command.ROOT", tmp_path)
    assert main(["--", "job.train"]) == 0
    assert set(client.files) == wanted
    # Ray's own command reads .rayignore, and tells no folder from a file without an ending
    shutil.copyfile(ROOT / ".rayignore", tmp_path / ".rayignore")
    create_package(str(tmp_path), tmp_path / "p.zip", include_gitignore=True, excludes=[])
    packed = zipfile.ZipFile(tmp_path / "p.zip").namelist()
    assert {name for name in packed if "." in Path(name).name} == wanted


@pytest.mark.parametrize("option", [["--config", "{}"], ["--config={}"]])
def test_named_configurations_are_carried(option, client, tmp_path, monkeypatch):
    outside = tmp_path / "mine/own.yaml"
    outside.parent.mkdir()
    outside.write_text("run: {name: mine}\n")
    monkeypatch.chdir(outside.parent)
    inside = f"{ROOT}/job/presets/base.yaml"
    given = [word.format("own.yaml") for word in option]
    assert main(["--", "job.train", "--config", inside, *given, "--run.name", "b c"]) == 0
    words = shlex.split(client.given["entrypoint"])
    assert words[:5] == ["python", "-m", "job.train", "--config", "job/presets/base.yaml"]
    assert words[5] == "--config"
    assert client.files[words[6]] == outside.read_bytes()
    assert words[7:] == ["--run.name", "b c"]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "own.yaml: there is no such file on this machine"),
        ("run: {nmae: x}", "own.yaml:1"),
        ("run: {storage: 's3://key:hidden@bucket'}", "run.storage is a URI that holds a password"),
        ("data: {text: {readings: own.yaml}}", "give it as --data.text.readings own.yaml"),
    ],
)
def test_a_configuration_that_cannot_be_used_there_is_refused_here(
    content, told, client, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path("own.yaml").write_text(content)
    with pytest.raises((ValueError, OSError), match=re.escape(told)) as refused:
        main(["--", "job.train", "--config", "own.yaml"])
    assert "hidden" not in str(refused.value)
    assert not client.given


def test_spaces_and_readings_are_carried_and_named_spaces_are_not(client, tmp_path):
    for name in ("space.yaml", "words.yaml"):
        (tmp_path / name).write_text(name)
    files = ["--space", f"{tmp_path}/space.yaml", "--data.text.readings", f"{tmp_path}/words.yaml"]
    assert main(["--", "tuning.sweep", *files]) == 0
    words = shlex.split(client.given["entrypoint"])
    assert [client.files[words[i]] for i in (4, 6)] == [b"space.yaml", b"words.yaml"]
    assert main(["--", "tuning.sweep", "--space", "loss_weights"]) == 0
    assert client.given["entrypoint"].endswith("--space loss_weights")


def test_a_job_gets_variables_and_no_log_their_values(client, monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", "hf-secret")
    options = [
        "--env",
        "HF_TOKEN",
        "--env",
        "A=b=c",
        "--env",
        "EMPTY=",
        "--submission-id",
        "mine-1",
    ]
    assert main([*options, "--", "job.train"]) == 0
    env = client.given["runtime_env"]["env_vars"]
    assert (env["HF_TOKEN"], env["A"], env["EMPTY"]) == ("hf-secret", "b=c", "")
    shown = capsys.readouterr()
    assert "job mine-1: python -m job.train" in shown.out
    assert "hf-secret" not in shown.out + shown.err


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--env", "NOT_SET"], "--env NOT_SET: it is not set here"),
        (["--env", "=hidden"], "--env takes NAME or NAME=VALUE"),
        (["--env", "A B=hidden"], "--env takes NAME or NAME=VALUE"),
        (["--submission-id", "a/b"], "--submission-id is 'a/b'"),
        (["--submission-id", ""], "--submission-id is ''"),
        (["--retry", "-1"], "--retry is -1: give how often at most, from 0"),
        (["--retry", "1", "--no-wait"], "--retry follows the job, and --no-wait does not"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, told, client):
    with pytest.raises(ValueError, match=re.escape(told)) as refused:
        main([*options, "--", "job.train"])
    assert "hidden" not in str(refused.value)
    assert not client.given


@pytest.mark.parametrize("columns", [80, 120])
def test_a_training_has_its_two_lines_on_this_terminal(client, monkeypatch, columns):
    """As on the machine itself, its last page below them; the output comes in any pieces."""
    said = [
        line
        for line in RECORDED.read_text("utf-8").splitlines(keepends=True)
        if " DEBUG " not in line
    ]
    told = "".join(["starting Ray ...\n", *said, "run demo: step 12 of 12\n  shards  s\nnext"])

    async def pieces(job: str):
        for start in range(0, len(told), 700):
            yield told[start : start + 700]

    monkeypatch.setattr(client, "tail_job_logs", pieces)
    with terminal(columns) as screen:
        assert main(["--", "job.train", "--config", str(DEMO)]) == 0
    golden = (GOLDEN / f"train-{columns}.txt").read_text(encoding="utf-8").splitlines()
    end = next(i for i, line in enumerate(golden) if line.startswith("run demo"))
    begin = next(i for i, line in enumerate(golden) if line.startswith("validation"))
    shown = screen.masked.splitlines()
    assert "✓ waiting for the workers: 0.0 s" in shown
    at = next(i for i, line in enumerate(shown) if line.startswith("validation"))
    assert shown[at : at + end - begin] == golden[begin:end]
    last = shown[at + end - begin :]
    assert last == ["run demo: step 00 of 00", "  shards  s", "next", "job job: succeeded"]


def test_no_wait_ends_at_once_and_tells_how_to_go_on(client, monkeypatch, capsys):
    monkeypatch.setattr(client, "tail_job_logs", None)
    assert main(["--no-wait", "--address", "http://head:8265", "--", "job.train"]) == 0
    shown = capsys.readouterr().out
    assert "ray job logs --follow --address http://head:8265 job" in shown
    assert "ray job stop --address http://head:8265 job" in shown


@pytest.mark.parametrize(
    ("status", "code"), [(JobStatus.SUCCEEDED, 0), (JobStatus.FAILED, 1), (JobStatus.STOPPED, 1)]
)
def test_it_ends_as_the_job_does(status, code, client, monkeypatch):
    monkeypatch.setattr(client, "get_job_status", lambda job: status)
    assert main(["--", "job.train"]) == code


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("the connection broke")])
def test_a_terminal_that_leaves_has_its_own_status(error, client, monkeypatch, capsys):
    def leaves(job: str) -> JobStatus:
        raise error

    monkeypatch.setattr(client, "get_job_status", leaves)
    assert main(["--", "job.train"]) == 130
    assert f"continues without this terminal{f' ({error})' if str(error) else ''}." in (
        capsys.readouterr().out
    )


class LosesHeads(Client):
    """A cluster whose head goes while a job runs, as often as told, and comes back."""

    def __init__(self, heads: int, keeps: bool = False):
        """Begin with a head; `keeps`: a Redis keeps what it knows of jobs."""
        super().__init__()
        self.heads, self.keeps = heads, keeps
        self.jobs: list[str] = []  # of the head of now
        self.submitted: list[str] = []
        self.away = 0

    def submit_job(self, **given: object) -> str:
        name = super().submit_job(**given)
        self.jobs.append(name)
        self.submitted.append(name)
        return name

    async def tail_job_logs(self, job: str):
        yield f"{job} begins\n"
        if self.heads:
            self.heads -= 1
            self.away = 3
            self.jobs = self.jobs if self.keeps else []
            raise RuntimeError("WebSocket connection closed unexpectedly")
        yield f"{job} ends\n"

    def list_jobs(self) -> None:
        if self.away:
            self.away -= 1
            raise ConnectionError("refused")

    def get_job_status(self, job: str) -> JobStatus:
        if job not in self.jobs:
            raise RuntimeError(f"Request failed with status code 404: no {job}")
        return JobStatus.SUCCEEDED


@pytest.fixture
def loses(monkeypatch) -> Callable[..., LosesHeads]:
    def made(heads: int, **settings: bool) -> LosesHeads:
        client = LosesHeads(heads, **settings)
        monkeypatch.setattr("job.submit.command.connect", lambda address: client)
        return client

    monkeypatch.setattr("job.submit.following.LOOK_EVERY_S", 0)
    return made


def test_a_job_that_is_lost_with_the_head_is_submitted_again(loses, capsys):
    client = loses(2)
    assert main(["--retry", "2", "--submission-id", "mine", "--", "job.train", "--seed", "1"]) == 0
    assert client.submitted == ["mine", "mine-2", "mine-3"]
    assert client.given["entrypoint"] == "python -m job.train --seed 1"
    assert "job/train.py" in client.files  # a new head has no upload
    told = capsys.readouterr().out
    assert told.count("the head does not answer: waits until it is back (refused)") == 2
    assert told.count("was lost with the head: it is submitted again") == 2
    assert told.endswith("mine-3 ends\njob mine-3: succeeded\n")


def test_after_the_last_retry_it_leaves_as_without_any(loses, capsys):
    client = loses(2)
    assert main(["--retry", "1", "--", "job.train"]) == 130
    assert len(client.submitted) == 2
    assert "continues without this terminal" in capsys.readouterr().out
    assert main(["--", "job.train"]) == 0


def test_a_job_that_the_head_still_knows_is_followed_on(loses, capsys):
    client = loses(1, keeps=True)
    assert main(["--retry", "1", "--", "job.train"]) == 0
    assert client.submitted == ["job"]
    assert capsys.readouterr().out.count("job begins") == 1


@pytest.mark.parametrize(
    ("error_type", "times"),
    [("JOB_SUPERVISOR_ACTOR_DIED", 2), ("JOB_ENTRYPOINT_COMMAND_ERROR", 1), (None, 1)],
)
def test_a_job_that_fails_by_itself_is_not_tried_again(error_type, times, loses, monkeypatch):
    client = loses(0)
    monkeypatch.setattr(client, "get_job_status", lambda job: JobStatus.FAILED)
    details = SimpleNamespace(error_type=error_type)
    monkeypatch.setattr(client, "get_job_info", lambda job: details, raising=False)
    assert main(["--retry", "1", "--", "job.train"]) == 1
    assert len(client.submitted) == times


def test_a_job_that_the_cluster_does_not_take_is_one_line_without_secrets(client, monkeypatch):
    client.error = RuntimeError("status 500: Traceback ...\\nValueError: bad env {'K': 's3cret'}")
    with pytest.raises(ValueError, match="does not take the job") as refused:
        main(["--env", "K=s3cret", "--", "job.train"])
    assert "s3cret" not in str(refused.value)
    assert refused.value.__cause__ is refused.value.__context__ is None  # no traceback has it
    client.error = RuntimeError("Job with submission_id a already exists. Please use a different")
    with pytest.raises(ValueError, match="--submission-id a: the cluster has a job of this id"):
        main(["--submission-id", "a", "--", "job.train"])


@pytest.mark.parametrize("variable", [None, "RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"])
def test_an_address_of_rays_client_is_refused_in_a_line(variable, monkeypatch):
    if variable is not None:
        monkeypatch.setenv(variable, "ray://head:10001")
    options = ["--address", "ray://head:10001"] if variable is None else []
    with pytest.raises(ValueError, match=r"^ray://head:10001 is for Ray's client.*--address"):
        main([*options, "--", "job.train"])


@pytest.mark.parametrize("variable", ["RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"])
def test_the_address_that_is_given_counts(variable, monkeypatch):
    monkeypatch.setenv(variable, "ray://head:10001")
    with pytest.raises(ValueError, match=r"no cluster answers at http://127\.0\.0\.1:9"):
        main(["--address", "http://127.0.0.1:9", "--", "job.train"])
    assert os.environ[variable] == "ray://head:10001"


def test_no_cluster_is_told_with_what_to_do():
    with pytest.raises(
        ValueError,
        match=r"no cluster answers at http://127\.0\.0\.1:9: .*ray dashboard cluster\.yaml",
    ):
        connect("http://127.0.0.1:9")


@pytest.mark.parametrize("given", [None, "7"])
def test_a_job_gets_the_time_to_save_when_it_is_stopped(given, client, monkeypatch):
    if given:
        monkeypatch.setenv("RAY_JOB_STOP_WAIT_TIME_S", given)
    assert main(["--", "job.train"]) == 0
    seconds = client.given["runtime_env"]["env_vars"]["RAY_JOB_STOP_WAIT_TIME_S"]
    assert seconds == given if given else int(seconds) >= 60


class Submitted:
    """`python -m job.submit` on the head of a cluster; what it prints."""

    def __init__(self, cluster: LocalCluster, log: Path, *argv: str):
        self.log = log
        command = [sys.executable, "-m", "job.submit", "--address", cluster.dashboard, "--", *argv]
        self.process = cluster.start(command, log)

    def wait_for(self, words: str, timeout: float = 240) -> str:
        deadline = time.monotonic() + timeout
        while words not in (text := self.log.read_text()):
            assert self.process.poll() is None, f"it ended without {words!r}:\n{text[-4000:]}"
            assert time.monotonic() < deadline, f"no {words!r}:\n{text[-4000:]}"
            time.sleep(0.2)
        return text

    def ended(self, timeout: float = 240) -> int:
        return self.process.wait(timeout)


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(workers=0, dashboard=True) as started:
        yield started


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_job_outlives_its_terminal(cluster, shards, tmp_path):
    argv = arguments(
        shards, tmp_path / "runs", run__name="a", train__max_steps=8, train__log_every_steps=1
    )
    first = Submitted(cluster, tmp_path / "first.log", "job.train", *argv)
    first.wait_for("step 1/8")  # rank 0's log, as it comes
    first.process.send_signal(signal.SIGINT)
    assert first.ended(30) == 130
    told = first.log.read_text()
    assert "The job continues without this terminal" in told
    follow = (
        next(line for line in told.splitlines() if "follow it:" in line).partition(":")[2].split()
    )
    stop = next(line for line in told.splitlines() if "stop it:" in line).partition(":")[2].split()
    assert (follow[:3], stop[:3]) == (["ray", "job", "logs"], ["ray", "job", "stop"])
    ray = str(Path(sys.executable).parent / "ray")
    followed = cluster.run([ray, *follow[1:]], timeout=240)
    assert "step 8 of 8" in followed.stdout, followed.stdout[-3000:] + followed.stderr[-2000:]
    assert [line["step"] for line in metrics(tmp_path / "runs/a")] == list(range(1, 9))
    again = Submitted(cluster, tmp_path / "again.log", "job.train", *argv)
    assert again.ended() == 0
    assert "the run a is finished" in again.log.read_text()
    listed = cluster.run([sys.executable, "-m", "job.runs", str(tmp_path / "runs")])
    assert listed.stdout.splitlines()[1].split()[:3] == ["a", "finished", "8"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_job_that_fails_says_so(cluster, shards, tmp_path):
    argv = arguments(shards, tmp_path, run__name="a", scaling__num_workers=99)
    failing = Submitted(cluster, tmp_path / "failing.log", "job.train", *argv)
    assert failing.ended() == 1
    assert "error: scaling.num_workers 99 is more than the plan can feed" in failing.log.read_text()
    doctor = Submitted(cluster, tmp_path / "doctor.log", "job.doctor", *argv)
    assert doctor.ended() == 1
    assert "not fit: configuration" in doctor.log.read_text()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_rays_own_command_does_as_well(cluster, shards, tmp_path):
    ray = str(Path(sys.executable).parent / "ray")
    options = arguments(shards, tmp_path, run__name="a", train__max_steps=2)
    argv = [
        ray,
        "job",
        "submit",
        "--address",
        cluster.dashboard,
        "--working-dir",
        ".",
        "--",
        "python",
        "-m",
        "job.train",
    ]
    done = cluster.run([*argv, *options], timeout=300)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    assert "step 2 of 2" in done.stdout
    assert json.loads((tmp_path / "a/metrics.jsonl").read_text().splitlines()[-1])["step"] == 2


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_sweep_is_submitted_like_any_other_job(cluster, shards, tmp_path):
    options = {"scaling__num_workers": 1, "train__micro_batches_per_step": 2, "train__max_steps": 2}
    options |= {
        "eval__every_steps": 1,
        "train__checkpoint__every_steps": 1,
        "metric": "eval/mel",
        "trials": 2,
    }
    argv = arguments(
        shards, tmp_path / "runs", run__name="s", space="reconstruction", schedule="none", **options
    )
    submitted = Submitted(cluster, tmp_path / "sweep.log", "tuning.sweep", *argv)
    assert submitted.ended(800) == 0, submitted.log.read_text()[-4000:]
    printed, sweep = submitted.log.read_text(), tmp_path / "runs/s-sweep"
    assert "running" in printed  # the table, as it goes
    trials = list(csv.DictReader((sweep / "trials.csv").open()))
    assert [(trial["status"], trial["step"]) for trial in trials] == [("finished", "2")] * 2
    for trial in trials:
        assert [line["step"] for line in metrics(sweep / "runs" / trial["trial"])] == [1, 2]
    assert yaml.safe_load((sweep / "best.yaml").read_text())["run"]["name"] == "s-best"

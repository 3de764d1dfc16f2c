"""What commands show: two lines and tables on a terminal, the lines of the log elsewhere."""

import contextlib
import io
import pickle
import sys
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from ray._private.ray_logging import WorkerStandardStreamDispatcher

import job.prepare
from data.corpus.ledger import Ledger, Reject
from data.corpus.progress import Progress
from data.rejected import Reason
from job.on_ray.private import output, taking
from job.reports import console, forwarded
from job.reports.console import stage, starting, table
from job.reports.forwarded import listen
from job.reports.outcome import summary
from job.reports.progress import Scores, Step, clock, follow, two_lines
from job.settings.cli import config_of
from tests.job.conftest import DEMO
from tests.job.reports.terminal import GOLDEN, RECORDED, assert_golden, terminal
from trainable.config import CheckpointConfig
from trainable.run.format import CHECKSUMS, checkpoint_name
from tuning.results import Results
from tuning.space import Axis
from tuning.sweep import Sweep
from tuning.sweep import summary as sweep_summary
from tuning.watch import Watch

WIDTHS = pytest.mark.parametrize("columns", [80, 120])
RANKING = CheckpointConfig()
SPACE = {
    "train.loss_weights.mel": Axis("grid", (15.0, 45.0)),
    "train.loss_weights.kl": Axis("grid", (1.0, 2.0)),
    "train.loss_weights.duration_discriminator": Axis("grid", (1.0,)),
    "train.learning_rate": Axis("grid", (1e-4,)),
}


@pytest.fixture
def cfg(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return config_of(["--config", str(DEMO)])


def show_training(log: Path) -> None:
    """A training as its driver sees it: rank 0's log grows."""
    with (
        starting("starting Ray", contextlib.nullcontext()),
        follow(log, RANKING, "placing 2 workers", every_s=0.01),
        log.open("a", encoding="utf-8") as file,
    ):
        file.write(RECORDED.read_text(encoding="utf-8"))
        file.write("half a li")


@WIDTHS
def test_a_training_on_a_terminal(tmp_path, cfg, columns):
    saved = tmp_path / "runs/demo" / checkpoint_name(12)
    saved.mkdir(parents=True)
    (saved / CHECKSUMS).touch()
    with terminal(columns) as screen:
        show_training(tmp_path / "rank-0.log")
        print(summary(cfg, 12))
    assert_golden(screen, "train")
    assert "parameters" not in "".join(screen.lines)
    at = next(i for i, line in enumerate(screen.lines) if line.startswith("step 12/12 "))
    assert [len(line) for line in screen.lines[at : at + 2]] == [columns, columns]


@pytest.fixture
def cluster(monkeypatch):
    """What a driver is told of what the cluster's processes print; it shows that in its way."""
    told = WorkerStandardStreamDispatcher()

    def printed(batch: dict) -> None:
        for line in batch["lines"]:
            stream = sys.stderr if batch["is_err"] else sys.stdout
            print(f"(worker) {line}", file=stream, flush=True)

    told.add_handler("ray_print_logs", printed)
    monkeypatch.setattr(output, "dispatcher", told)
    monkeypatch.setattr(forwarded, "ON_THE_WAY_S", 0.0)
    return told


def show_training_on(cluster: WorkerStandardStreamDispatcher, log: Path, other: str = "") -> None:
    """A training as the driver on a cluster sees it: what is said comes from other machines."""
    with (
        starting("starting Ray", contextlib.nullcontext()),
        listen(log, RANKING, "placing 2 workers", taking),
    ):
        lines = RECORDED.read_text(encoding="utf-8").splitlines()
        said = [line for line in lines if " DEBUG " not in line]
        cluster.emit({"lines": said[:-1], "is_err": False})
        if other:
            cluster.emit({"lines": [other], "is_err": True})
        cluster.emit({"lines": said[-1:], "is_err": False})


@WIDTHS
def test_a_training_of_a_cluster_on_a_terminal(tmp_path, cluster, columns):
    """The screen of one machine but for a detail, and what others say above the two lines."""
    with terminal(columns) as screen:
        show_training_on(cluster, tmp_path / "rank-0.log", "a warning")
    golden = (GOLDEN / f"train-{columns}.txt").read_text(encoding="utf-8").splitlines()
    end = next(i for i, line in enumerate(golden) if line.startswith("run demo"))
    golden = [line for line in golden[:end] if line != "✓ the first steps: 0.0 s"]
    *before, other, first, second = screen.masked.splitlines()
    assert [*before, first, second] == golden
    assert other == "(worker) a warning"
    cluster.emit({"lines": ["later"], "is_err": False})


def test_a_training_of_a_cluster_elsewhere(tmp_path, cluster, capsys):
    """As in `ray job submit`: rank 0's lines without Ray's mark, all others with it."""
    show_training_on(cluster, tmp_path / "rank-0.log", "a warning")
    cluster.emit({"lines": ["afterwards"], "is_err": True})
    told = capsys.readouterr()
    log = RECORDED.read_text(encoding="utf-8").splitlines()
    begin = ["starting Ray ...", "starting Ray: 0.0 s", "placing 2 workers ..."]
    assert told.out.splitlines() == begin + [line for line in log if " DEBUG " not in line]
    assert told.err.splitlines() == ["(worker) a warning", "(worker) afterwards"]


def test_a_training_elsewhere(tmp_path, monkeypatch):
    """Lines as the log has them, but for its details; nothing is drawn again."""
    told = io.StringIO()
    monkeypatch.setattr(sys, "stdout", told)
    show_training(tmp_path / "rank-0.log")
    log = RECORDED.read_text(encoding="utf-8").splitlines()
    begin = ["starting Ray ...", "starting Ray: 0.0 s", "placing 2 workers ..."]
    assert told.getvalue().splitlines() == begin + [line for line in log if " DEBUG " not in line]
    assert not set("\r\x1b") & set(told.getvalue())
    assert any(" DEBUG step 12 of 12: done; parameters " in line for line in log)


def test_earlier_validations_of_the_run_are_known(tmp_path):
    log = tmp_path / "rank-0.log"
    log.write_text(RECORDED.read_text(encoding="utf-8"), encoding="utf-8")
    step = "2026-11-25 03:00:00,000 rank 0 INFO step 15/40 epoch 1: mel 90.0 | 2.00 s/step, 1.0 "
    with terminal(80) as screen, follow(log, RANKING, "placing 1 worker"), log.open("a") as file:
        file.write(f"{step}utterances/s, 1 workers\n")
    assert screen.lines[-1].endswith("best eval/mel 2.1354 at 12")
    assert "0:00:50 left" in screen.lines[-2]


def test_a_run_that_went_back_has_not_had_its_later_validations():
    scores = Scores(RANKING)
    for step, mel in ((40, 2.0), (80, 1.0), (60, 1.5)):
        scores.add(step, f"eval/mel {mel}")
    assert scores.best() == "best eval/mel 1.5000 at 60"


def test_what_is_better():
    scores = Scores(CheckpointConfig(metric="eval/similarity", larger_is_better=True))
    scores.add(1, "eval/similarity 0.5, eval/duration_ratio 1.2, eval/mel 2.0")
    scores.add(2, "eval/similarity 0.6, eval/duration_ratio 0.9, eval/mel 2.5")
    assert scores.best() == "best eval/similarity 0.6000 at 2"
    found = {
        str(name).strip(): (str(last), last.spans[0].style)
        for name, last in zip(*(scores.table().columns[i].cells for i in (0, 2)), strict=True)
    }
    assert found == {
        "similarity": ("\u2191 0.5000", "green"),
        "duration_ratio": ("\u2193 1.2000", "green"),
        "mel": ("\u2191 2.0000", "red"),
    }


@pytest.mark.parametrize("columns", [20, 40, 60, 80, 100, 120, 200])
@pytest.mark.parametrize("goal", [40, 500_000])
def test_two_lines_are_as_wide_as_the_terminal(columns, goal):
    losses = dict.fromkeys(("mel", "kl", "dur", "fm", "g", "d", "dur_disc", "wd"), "123.4")
    first = Step(1, goal, 0, losses, "1.72", "1.7", 16, 0.0)
    step = Step(goal - 10, goal, 12, losses, "1.72", "96.3", 16, 1e6)
    lines = two_lines(step, first, "best eval/log_f0_rmse_sdp 0.4142 at 499,000", columns)
    assert list(map(len, lines)) == [columns, columns]
    if columns >= 80:
        for part in (
            f"step {step.number:,}/{goal:,}",
            " left",
            "s/step",
            "utt",
            "16 workers",
            " %",
        ):
            assert part in lines[0]
        assert all(name in lines[1] for name in ("mel 123.4", "kl 123.4", "best"))


def test_a_long_time_has_days():
    assert [clock(seconds) for seconds in (0, 3661.4, 90_000)] == [
        "0:00:00",
        "1:01:01",
        "1 d 1 h",
    ]


def test_signs_that_an_encoding_lacks_are_shown_in_ascii():
    shown = SimpleNamespace(encoding="ascii")
    text = "\u2713 \u2022 \u2501\u2500 \u2193\u2191"
    assert console.plain(text, shown) == "+ - #- v^"


def test_a_stage_that_fails_is_not_said_to_be_done():
    with terminal(80) as screen, contextlib.suppress(ValueError), stage("opening"):
        raise ValueError
    assert screen.lines == [""]


class Prepared:
    """A preparation whose work is done already; it tells of it as ever."""

    uri = "shards/demo"
    speakers = ("en_f0", "en_f1")

    def __init__(self) -> None:
        ledger = Ledger("esd.list", 54)
        for i in range(53):
            ledger.keep(f"en_f{i % 2}", "EN", 3.0)
        ledger.reject([Reject("esd.list", 7, Reason.MISSING_AUDIO, "none", "a|b", "en_f1", "EN")])
        for what, count in (("survey", 54), ("features", 53)):
            with contextlib.closing(Progress(what, count)) as progress:
                progress.advance(count)
        print(ledger.table())

    def __len__(self) -> int:
        return 53


@WIDTHS
def test_a_preparation_on_a_terminal(cfg, monkeypatch, columns):
    monkeypatch.setattr(job.prepare, "ray_session", lambda cfg: contextlib.nullcontext())
    monkeypatch.setattr(job.prepare, "prepare", lambda *_: Prepared())
    monkeypatch.chdir(Path(__file__).parents[3])
    with terminal(columns) as screen:
        job.prepare.main(["--config", "job/presets/demo.yaml"])
    assert_golden(screen, "prepare")


def trial(name: str, status: str, score: float | None, done: int) -> SimpleNamespace:
    return SimpleNamespace(
        trial_id=name,
        status=status,
        is_finished=lambda: status == "TERMINATED",
        last_result={"step": 40 * done, "validation": done, "eval/mcd": score} if score else {},
        metric_analysis={"eval/mcd": {"min": score}} if score else {},
        config=dict.fromkeys(SPACE, 1.5),
    )


@WIDTHS
def test_a_sweep_on_a_terminal(cfg, columns):
    watch = Watch(SPACE, "eval/mcd", "runs", validations=3)
    watch.setup(total_num_samples=4)
    trials = [
        trial("1a2b3_00000", "TERMINATED", 16.8, 3),
        trial("1a2b3_00001", "RUNNING", 15.25, 1),
        trial("1a2b3_00002", "PENDING", None, 0),
    ]
    best = {
        "trial": "1a2b3_00001",
        "status": "finished",
        "step": 120,
        "eval/mcd": 15.25,
        "run": "x",
    }
    rows = pd.DataFrame([best | dict.fromkeys(SPACE, 1.5)])
    results = Results(SPACE, "eval/mcd", rows, rows)
    with terminal(columns) as screen:
        for _ in range(2):  # the second one within a moment: one table
            watch.on_trial_result(1, trials, trials[1], {})
        watch.show(trials)
        print(sweep_summary(Sweep(cfg, SPACE, None, "eval/mcd"), results))
    assert_golden(screen, "sweep")


def test_a_sweeps_table_elsewhere_has_all_keys(cfg, capsys):
    watch = Watch(SPACE, "eval/mcd", "runs", validations=3)
    watch.setup(total_num_samples=1)
    watch.show([trial("a", "RUNNING", 15.25, 1)])
    assert "duration_discriminator" in capsys.readouterr().out


def test_a_sweep_that_continues_shows_its_trials(cfg, capsys):
    """Tune restores the callback as it was pickled."""
    watch = pickle.loads(pickle.dumps(Watch(SPACE, "eval/mcd", "runs", validations=3)))
    trials = [trial("a", "RUNNING", 15.25, 1), trial("b", "PENDING", None, 0)]
    watch.on_trial_result(1, trials, trials[0], {})
    assert (
        "0 of 2 trials have ended, 1 train\nbest eval/mcd 15.25 by a\n" in capsys.readouterr().out
    )


def test_a_table_has_columns():
    assert table(("run", "step"), [("demo", "5"), ("a", "120")]) == "run   step\ndemo  5\na     120"

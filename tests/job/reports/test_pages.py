"""Pages in a browser: light, dark and on a phone; sounds, filters and orders."""

import io
import json
import re
from collections import Counter
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from data.config import DataConfig
from data.corpus.ledger import Ledger, Reject
from data.corpus.report import report_page
from data.files import put_file
from data.plan.epoch_plan import Position
from data.quality.book import Flagged, Voice
from data.quality.gate import KINDS, Finding
from data.rejected import Reason
from job.reports.evaluation import report_page as evaluation_page
from job.reports.index import index_page
from job.reports.runs import Run
from tests.browser import CHROMIUM, browser, opened
from trainable.learning.judgement import Validation
from trainable.run.board import Board
from trainable.run.format import FORMAT, CheckpointInfo
from tuning.page import sweep_page
from tuning.results import Results
from tuning.space import Axis

MEASURES = ("level", "snr", "bandwidth", "silence", "clipped", "rate")
TAGS = ("mel", "kl", "dur", "mcd", "log_f0_rmse", "vuv_error", "duration_ratio", "mcd_sdp")
PHONE = 360  # pixels
LARGEST_PAGE = 1_500_000  # beside sounds and pictures
LONG = "a_very_long_name_of_a_recording_that_nobody_would_ever_want_to_wrap/but_which_has_to_be.wav"
TEXTS = ("Good morning.", "今天天气真不错。", "<b>おはよう</b>")
DATA = DataConfig()


def tone(seconds: float, pitch: float) -> np.ndarray:
    time = np.arange(int(seconds * DATA.sampling_rate)) / DATA.sampling_rate
    return (0.3 * np.sin(2 * np.pi * pitch * time)).astype(np.float32)


def report() -> str:
    ledger = Ledger("/somewhere/on/a/disk/esd.list", 60)
    for number in range(57):
        ledger.keep("anna" if number % 3 else LONG, "EN" if number % 2 else "JP", 2 + number / 10)
    ledger.reject(
        Reject("esd.list", number, Reason.SILENT, "never loud", f"{LONG}|anna|EN|Hello", "anna")
        for number in range(3)
    )
    measures = dict(zip(MEASURES, (-21.5, 30.2, 8000.0, 0.2, 0.01, 14.2), strict=True))
    ledger.quality.voices["anna"] = Voice(38, 37, measures, {kind.name: 2 for kind in KINDS})
    findings = [Finding("noisy", "SNR 3 dB")]
    ledger.quality.worst.append(
        Flagged("esd.list", 7, "a.wav", LONG, "Good <b>morning</b>.", findings, False, measures)
    )
    buffer = io.BytesIO()
    soundfile.write(buffer, tone(0.5, 300), DATA.sampling_rate, format="MP3")
    phones = {"EN": Counter({"ah": 5, "n": 2}), "JP": Counter({"a": 9, "o": 3})}
    return report_page(
        ledger,
        phones,
        ["speaker without a training line (not learned): c"],
        {"a.wav": buffer.getvalue()},
    )


def evaluation(folder: Path) -> str:
    generator = np.random.default_rng(1)
    utterances = []
    samples = []
    for number, text in enumerate(TEXTS):
        scores = dict(zip(TAGS, generator.uniform(0.5, 2, len(TAGS)).tolist(), strict=True))
        scores["mcd"] = 5.0 + number
        who = {"id": f"{LONG}{number}", "speaker": "anna", "language": ("EN", "ZH", "JP")[number]}
        utterances.append({"number": number, **who, "scores": scores})
        mel = generator.normal(size=(80, 120 + 30 * number)).astype(np.float32)
        audio = {f"gt/audio_{number}": tone(0.6, 220), f"gen/audio_{number}_False": tone(0.5, 330)}
        samples.append(
            {
                "number": number,
                "text": text,
                "audio": audio,
                "mels": {f"gt/mel_{number}": mel, f"gen/mel_{number}": mel[:, :90] * 3},
                "alignments": {f"gen/attn_{number}": np.eye(90, 40, dtype=np.float32)},
            }
        )
    means = {tag: float(np.mean([u["scores"][tag] for u in utterances])) for tag in TAGS}
    run = folder / "runs/demo"
    history = [
        {"step": step, "score": 9 - step / 100, "mel": 2 - step / 200, "train_mel": 1.8}
        | {"ranks_by": "eval/mcd"}
        for step in (40, 80, 120)
    ]
    content = {
        "checkpoint": f"{run}/checkpoint_000000120",
        "step": 120,
        "weights": "g",
        "split": "validation",
        "scores": {"all": means, "language EN": utterances[0]["scores"]},
        "utterances": utterances,
        "history": history,
    }
    return evaluation_page(content, samples, DATA, f"{run}/evaluation_000000120")


def sweep(folder: Path) -> str:
    space = {
        "train.loss_weights.mel": Axis("loguniform", (15.0, 135.0)),
        "train.learning_rates.dur_disc": Axis("loguniform", (1e-5, 1e-3)),
        "train.precision": Axis("choice", ("fp32", "bf16")),
    }
    rows = []
    for number in range(6):
        values = dict(zip(space, (15.0 * 1.4**number, 1e-5 * 2**number, "bf16"), strict=True))
        row = {
            "trial": f"0{number}a1b2c",
            "status": "finished",
            "validations": 3,
            "run": f"r{number}",
        }
        rows.append(row | {"step": 30, "eval/mcd": 7.0 + number / 10, **values, "error": ""})
        board = Board(1)
        board.audio("sentence/EN_anna", tone(0.4, 200 + 50 * number), 30, 44100, TEXTS[0])
        events = folder / f"runs/r{number}/tensorboard/eval/events.out.tfevents.1"
        events.parent.mkdir(parents=True)
        events.write_bytes(board.take())
    history = [
        {"trial": row["trial"], "step": step, "eval/mcd": row["eval/mcd"] + 3 / step}
        for row in rows
        for step in (10, 20, 30)
    ]
    results = Results(space, "eval/mcd", pd.DataFrame(history), pd.DataFrame(rows))
    baseline = {key: rows[3][key] for key in space}
    return sweep_page(results, str(folder), False, baseline)


def runs(folder: Path) -> str:
    now = datetime(2026, 1, 2, tzinfo=UTC)
    validations = tuple(Validation(step, 1.0, 2 - step / 100, 1.5) for step in (40, 60, 80))
    info = CheckpointInfo(Position(80), "", "", {}, {}, 1, validations=validations)
    checkpoint = folder / "mine/checkpoint_000000080"
    put_file(f"{checkpoint}/state.json", json.dumps({"format": FORMAT, **asdict(info)}).encode())
    put_file(f"{folder}/mine/evaluation_000000080/evaluation.html", b"")
    found = [
        Run("mine", 80, 120, 0.25, "eval/mel", now, newest=str(checkpoint)),
        Run(LONG.partition("/")[0], 0, 120, None, "eval/mel", now - timedelta(hours=1)),
    ]
    wrong = {"odd": "config.yaml holds no sections"}
    return index_page(found, wrong, str(folder), str(folder), now)


@pytest.mark.processes
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: .ci/run installs it")
def test_pages_fit_any_screen_and_play(tmp_path):
    shown = {
        "report": report(),
        "evaluation": evaluation(tmp_path),
        "sweep": sweep(tmp_path / "demo-sweep"),
        "runs": runs(tmp_path / "runs"),
    }
    for name, content in shown.items():
        assert len(re.sub(r"data:[\w/]+;base64,[\w+/=]+", "", content)) < LARGEST_PAGE, name
        (tmp_path / f"{name}.html").write_text(content, "utf-8")
    assert 'href="mine/evaluation_000000080/evaluation.html"' in shown["runs"]
    assert shown["runs"].count("<svg") == 1
    with browser() as chromium:
        for name in shown:
            for look, width in (("light", 1280), ("dark", 1280), ("light", PHONE)):
                with opened(chromium, (tmp_path / f"{name}.html").as_uri(), look, width) as page:
                    wide = page.evaluate("document.documentElement.scrollWidth")
                    assert wide <= width, f"{name} at {width} px is {wide} px wide"
                    if width == PHONE:
                        hidden = "[...document.querySelectorAll('.scroll')]"
                        hidden += ".filter(part => part.scrollWidth > part.clientWidth + 1)"
                        assert page.evaluate(f"{hidden}.length") == 0, f"{name}: a table is cut off"
                    empty = "[...document.querySelectorAll('h2, h3')].filter(h => !h.innerText)"
                    assert page.evaluate(f"{empty}.length") == 0
                    page.screenshot(path=tmp_path / f"{name}-{look}-{width}.png", full_page=True)
        with opened(chromium, (tmp_path / "evaluation.html").as_uri()) as page:
            assert page.locator("article h3").first.inner_text().startswith(f"{LONG}2")
            assert page.locator(".said").nth(0).inner_text() == "<b>おはよう</b>"
            one_plays(page)
            page.locator("input[type=search]").first.fill("天气")
            assert page.locator("article:visible").count() == 1
            head = page.locator("table").last.locator("th", has_text="mcd, dB").first
            head.click()
            assert (
                page.locator("table").last.locator("tbody tr").first.inner_text().count(f"{LONG}0")
            )
        with opened(chromium, (tmp_path / "report.html").as_uri()) as page:
            seconds = "a => a.play().then(() => a.duration)"
            assert page.locator("audio").evaluate(seconds) == pytest.approx(0.5, abs=0.1)
            page.locator("input[type=search]").first.fill("nothing")
            assert page.locator(".card:visible").count() == 0
        with opened(chromium, (tmp_path / "sweep.html").as_uri()) as page:
            assert page.locator("audio").count() == 3
            one_plays(page)


def one_plays(page) -> None:
    """Start two players: the first one stops."""
    playing = page.evaluate(
        """async () => {
            const [first, second] = document.querySelectorAll("audio")
            await first.play()
            await second.play()
            while (second.currentTime < 0.02) await new Promise(done => setTimeout(done, 10))
            return [first.paused, first.duration, second.duration]
        }"""
    )
    assert playing[0]
    assert 0.1 < playing[1] < 2
    assert 0.1 < playing[2] < 2

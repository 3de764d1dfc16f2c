"""Live listening: the page in a browser, sentences as spoken, ten at once, bad requests."""

import base64
import hashlib
import http.client
import io
import json
import re
import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

import job.serve.local
from job import listen
from job.serve.voices import Voices
from tests.browser import CHROMIUM, browser, opened, wait_until
from tests.job.voices import SAID, tiny_checkpoint
from trainable.run.board import Board

SENTENCES = "[EN]Good morning. How are you today?[ZH]今天天气真不错。"


def write_sounds(run: Path, *sessions: tuple[int, ...]) -> None:
    """What a run that was started so often has spoken, at each start's steps."""
    for session, steps in enumerate(sessions):
        board = Board(steps[0])
        for step in steps:
            wave = np.full(4410, 0.1 * session, np.float32)
            board.audio("sentence/EN_en", wave, step, 44100, "Good morning, <b>all</b>.")
        events = run / f"tensorboard/eval/events.out.tfevents.{session}"
        events.parent.mkdir(parents=True, exist_ok=True)
        events.write_bytes(board.take())


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory) -> Path:
    folder = tiny_checkpoint(tmp_path_factory.mktemp("voice")).parent
    write_sounds(folder, (3, 6), (6, 7))  # the second session has resumed from step 5
    return folder


@pytest.fixture(scope="module")
def server(run_folder) -> Iterator[SimpleNamespace]:
    """job.listen itself, on a port of its own."""
    started: list = []
    made = job.serve.local.server_of

    def recorded(*args):
        started.append(made(*args))
        return started[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job.serve.local, "server_of", recorded)
        argv = [str(run_folder), "--port", "0", "--device", "cpu"]
        thread = threading.Thread(target=listen.main, args=(argv,))
        thread.start()
        while not (started and started[0].started):
            assert thread.is_alive()
            time.sleep(0.02)
        port = started[0].servers[0].sockets[0].getsockname()[1]
        yield SimpleNamespace(port=port, address=f"http://127.0.0.1:{port}/")
        started[0].should_exit = True
        thread.join(20)
        assert not thread.is_alive()


def asked(server, given: object, **headers: str) -> tuple[int, list[dict]]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=100)
    body = given if isinstance(given, bytes) else json.dumps(given).encode()
    connection.request(
        "POST",
        getattr(server, "path", "/speak"),
        body,
        {"Content-Type": "application/json"} | headers,
    )
    reply = connection.getresponse()
    lines = reply.read().decode().splitlines()
    connection.close()
    return reply.status, [json.loads(line) if line.startswith("{") else line for line in lines]


@pytest.mark.medium
def test_sentences_are_spoken_one_by_one_and_ten_at_once(server):
    request = {"text": SENTENCES, "speaker": "en", "length_scale": 1.2, "seed": 3}
    status, (first, second, third) = asked(server, request)
    assert status == 200
    assert [each["step"] for each in (first, second, third)] == [7, 7, 7]
    assert "Good morning." in first["text"]
    wave, rate = soundfile.read(io.BytesIO(base64.b64decode(first["wav"])))
    assert len(wave) / rate == pytest.approx(first["seconds"], abs=1e-3)

    texts = [{"text": SAID[code][1], "speaker": SAID[code][0], "language": code} for code in SAID]
    with ThreadPoolExecutor(10) as pool:
        replies = list(pool.map(lambda i: asked(server, texts[i % 3]), range(10)))
    assert [status for status, _ in replies] == [200] * 10
    assert all(len(lines) == 1 and lines[0]["wav"] for _, lines in replies)
    # equal requests sound alike, whoever else is served
    assert replies[0][1] == replies[3][1] == replies[9][1]


@pytest.mark.medium
@pytest.mark.parametrize(
    ("given", "status", "message"),
    [
        ({"text": "Hi.", "speaker": "nobody", "language": "EN"}, 400, "no speaker 'nobody'.*en"),
        ({"text": "Hi.", "language": "EN"}, 400, "no speaker is given"),
        ({"text": "", "speaker": "en", "language": "EN"}, 400, "text"),
        ({"text": "Hi.", "speaker": "en"}, 400, "language"),
        ({"text": "Hi.", "speaker": "en", "language": "XX"}, 400, "XX"),
        ({"text": "Hi.", "speaker": "en", "language": "EN", "sdp_ratio": 7}, 400, "sdp_ratio is 7"),
        ({"text": "Hi.", "speaker": "en", "language": "EN", "tone": 7}, 400, "unknown key 'tone'"),
        ({"text": 5}, 400, "text is 5"),
        ({"text": "Hi. " * 2000, "speaker": "en", "language": "EN"}, 400, "more than 5000"),
        ({"text": "Hi.", "checkpoint": "worst"}, 400, "newest, best|language"),
        ({"text": "H.", "language": "EN", "checkpoint": "worst"}, 400, "newest, best"),
        ({"text": "H.", "language": "EN", "checkpoint": "best"}, 400, "no checkpoint with a score"),
        ([1], 400, "JSON object"),
        (b"{", 400, "no JSON"),
        (b"[" * 5000, 400, "no JSON|more than"),
        (b"x" * 100_000, 400, "more than 65536 bytes"),
    ],
)
def test_what_cannot_be_spoken_gets_a_message(server, given, status, message):
    found, (line,) = asked(server, given)
    assert found == status
    assert re.search(message, line["error"])
    assert "Traceback" not in line["error"]


@pytest.mark.medium
def test_a_sentence_that_cannot_be_read_does_not_stop_the_others(server):
    text = {"text": "[EN]Yes! [ZH]カナ\n\n[EN]No!", "speaker": "en"}
    status, lines = asked(server, text)
    assert status == 200
    assert len(lines) == 3
    assert "wav" in lines[0]
    assert "wav" in lines[2]
    assert "empty_text" in lines[1]["error"]


@pytest.mark.medium
def test_pages_of_others_are_not_answered(server):
    request = {"text": "Hi.", "speaker": "en", "language": "EN"}
    assert asked(server, request, **{"Content-Type": "text/plain"})[0] == 415
    assert asked(server, request, Host="evil.example")[0] == 400


@pytest.mark.processes
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: .ci/run installs it")
def test_a_browser_speaks_and_plays_what_validations_said(server, tmp_path):
    with browser() as chromium:
        for look, width in (("light", 1280), ("dark", 1280), ("light", 420)):
            with opened(chromium, server.address, look, width) as page:
                assert page.evaluate("document.documentElement.scrollWidth") <= width
                page.screenshot(path=tmp_path / f"listen-{look}-{width}.png", full_page=True)
        with opened(chromium, server.address) as page:
            steps = page.locator(".cards figcaption").all_inner_texts()
            assert steps == ["step 7", "step 6", "step 3"]
            assert page.locator(".cards .said").inner_text() == "Good morning, <b>all</b>."
            heard = page.evaluate(
                """async () => {
                    const player = document.querySelector(".cards audio")
                    player.loop = true  // it still plays when the sentences come
                    await player.play()
                    return player.duration
                }"""
            )
            assert heard == pytest.approx(0.1, abs=0.01)
            page.fill("textarea", SENTENCES)
            page.select_option("[name=speaker]", "en")
            page.click("text=Speak >> nth=-1")
            page.wait_for_selector("#said article:nth-child(3) audio", timeout=60_000)
            assert page.evaluate("document.querySelector('.cards audio').paused")
            wait_until(page, "[...document.querySelectorAll('#said audio')].every(a => a.ended)")
            assert page.locator("#said .said").count() == 3
            page.screenshot(path=tmp_path / "listen-spoken.png", full_page=True)


def test_what_cannot_be_served_is_said_before_anything_is_loaded(run_folder, monkeypatch):
    with pytest.raises(ValueError, match="--port is 70000"):
        listen.main([str(run_folder), "--port", "70000"])
    with listen.listening("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=f"--port {port}: .*give another port"):
            listen.main([str(run_folder), "--port", str(port), "--device", "cpu"])
    monkeypatch.setattr(listen, "NEEDED", ("starlette", "no_such_package"))
    with pytest.raises(ValueError, match=r"no_such_package is not installed.*'\.\[listen\]'"):
        listen.main([str(run_folder)])


def test_a_run_without_a_checkpoint_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no checkpoint"):
        listen.main([str(tmp_path), "--port", "0", "--device", "cpu"])


def test_a_voice_grows_with_its_run(tmp_path):
    run = tiny_checkpoint(tmp_path).parent
    voices = Voices(str(run))
    assert voices.described().step == 7
    assert voices.described().sounds == ()
    newer = run / "checkpoint_000000008"
    shutil.copytree(run / "checkpoint_000000007", newer)
    state = json.loads((newer / "state.json").read_text())
    state["position"]["step"] = 8
    (newer / "state.json").write_text(json.dumps(state))
    sums = json.loads((newer / "checksums.json").read_text())
    sums["state.json"] = hashlib.sha256((newer / "state.json").read_bytes()).hexdigest()
    (newer / "checksums.json").write_text(json.dumps(sums))
    write_sounds(run, (8,))
    told = voices.described()
    assert told.step == 8
    assert [(sound.step, sound.text, sound.wav) for sound in told.sounds] == [
        (8, "Good morning, <b>all</b>.", b"")
    ]
    assert voices.heard("sentence/EN_en", 8).startswith(b"RIFF")
    assert voices.heard("sentence/EN_en", 9) == b""

"""A recording is cut where silero-vad finds silence, and every sample of it is accounted for."""

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.transcribe import NEAR_S, errors_of, make_recording
from data.config import DataConfig
from data.settings.asr import AsrConfig
from data.transcribe.activity import SECONDS, WINDOW, SpeechDetector
from data.transcribe.cutting import Cutter
from data.transcribe.records.ledger import account_of
from data.transcribe.records.listing import Source, slice_path
from data.transcribe.slicing import Span
from data.transcribe.work import Done
from tests.data.transcribe.recordings import write_recording

CFG = DataConfig()
RATE = 8000


class Told:
    """A detector that is told where speech is."""

    def __init__(self, speech: list[Span]) -> None:
        self.speech = speech
        self.samples = 0

    def begin(self) -> None:
        self.samples = 0

    def hear(self, block: np.ndarray) -> None:
        self.samples += len(block)

    def end(self) -> list[Span]:
        return self.speech

    def quietest(self, begin: float, end: float) -> float:
        return (begin + end) / 2


def source(path) -> Source:
    return Source(path.name, str(path), "1")


def test_speech_ends_where_it_is_less_likely_than_the_threshold():
    found = SpeechDetector(0.5)
    found.probabilities = [0.1] * 10 + [0.9] * 20 + [0.45] * 5 + [0.9] * 10 + [0.4] * 10 + [0.1] * 5
    found.samples = WINDOW * len(found.probabilities)
    windows = [(begin / SECONDS, end / SECONDS) for begin, end in found.end()]
    assert np.allclose(windows, [(10, 30), (35, 45)])


def test_blocks_of_any_length_are_heard():
    found = SpeechDetector(0.5)
    lengths = [0, 1, WINDOW - 2, 0, 1, WINDOW, 3]
    for length in lengths:
        found.hear(np.zeros(length, np.float32))
    assert len(found.probabilities) == sum(lengths) // WINDOW
    assert found.end() == []


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_recordings_of_any_rate_are_heard(tmp_path, rate):
    """At the end of one of 16 kHz the resampler has nothing left, of others few samples."""
    soundfile.write(tmp_path / "one.wav", np.zeros(rate + 200), rate)
    found = Cutter(CFG, str(tmp_path / "out"))(source(tmp_path / "one.wav"))
    assert (found["samples"], found["slices"], found["problem"]) == (rate + 200, [], None)


@pytest.mark.medium
def test_ends_are_found_in_noise(tmp_path):
    """They are what noise hides; a tenth of them came too late by the package's own way."""
    bounds = make_recording(tmp_path / "one.wav", 150, (0.7, 1.5), -40, seed=0)
    found = Cutter(CFG, str(tmp_path / "out"))(source(tmp_path / "one.wav"))
    spans = np.array([span[:2] for span in found["slices"] + found["too_short"]])
    slices = [{"begin": begin, "end": end} for begin, end in spans / found["rate"]]
    begins, ends = errors_of(bounds, slices).reshape(-1, 2).T
    assert np.mean(begins <= NEAR_S) == 1
    assert np.mean(ends <= NEAR_S) >= 0.95


@pytest.mark.medium
def test_boundaries_of_utterances_are_found(tmp_path):
    """Each slice begins and ends within 0.2 s of an utterance, and is that part of the sound."""
    places = write_recording(tmp_path / "one.flac", range(36, 42))
    found = Cutter(CFG, str(tmp_path / "out"))(source(tmp_path / "one.flac"))
    assert len(found["slices"]) == len(places) == 6
    whole, rate = soundfile.read(tmp_path / "one.flac")
    assert (found["rate"], found["samples"]) == (rate, len(whole))
    for number, ((begin, end, forced), place) in enumerate(
        zip(found["slices"], places, strict=True), start=1
    ):
        # the utterances have up to 0.25 s of silence of their own
        assert place[0] - 0.2 < begin / rate < place[0] + 0.3
        assert place[1] - 0.3 < end / rate < place[1] + 0.2
        assert not forced
        wav, _ = soundfile.read(tmp_path / "out" / slice_path("one.flac", number))
        np.testing.assert_allclose(wav, whole[begin:end], atol=2 / 32768)


def test_a_recording_is_read_in_blocks_and_its_channels_mixed(tmp_path):
    rng = np.random.default_rng(0)
    left = 0.1 * rng.normal(size=(70 * RATE, 1))
    soundfile.write(tmp_path / "two.wav", np.hstack([left, np.zeros_like(left)]), RATE)
    told = Told([(1.0, 4.0), (60.0, 65.0)])
    cutter = Cutter(CFG, str(tmp_path / "out"), lambda cfg: told)
    found = cutter(source(tmp_path / "two.wav"))
    assert abs(told.samples - 70 * 16000) <= 1
    begin, end, _ = found["slices"][1]
    wav, _ = soundfile.read(tmp_path / "out" / slice_path("two.wav", 2))
    np.testing.assert_allclose(wav, left[begin:end, 0] / 2, atol=2 / 32768)


@pytest.mark.parametrize(
    ("name", "content", "reason", "detail"),
    [
        ("noise.wav", b"no sound at all", "unreadable_audio", "not decodable"),
        ("song.m4a", b"\0\0\0 ftypM4A ", "unreadable_audio", "convert it, as with ffmpeg"),
        ("empty.flac", b"", "unreadable_audio", "not decodable"),
        ("gone.wav", None, "missing_audio", "there is no"),
    ],
)
def test_what_cannot_be_read_is_told(tmp_path, name, content, reason, detail):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    found = Cutter(CFG, str(tmp_path / "out"), lambda cfg: Told([]))(source(tmp_path / name))
    assert found["problem"][0] == reason
    assert detail in found["problem"][1]
    assert found["slices"] == []
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("reason", "wav"),
    [
        ("not_finite", np.full(RATE, np.nan)),
        ("too_short", np.zeros(0)),
        ("channels_cancel", np.sin(np.arange(RATE))[:, None] * [1, -1]),
    ],
)
def test_what_is_no_sound_is_told(tmp_path, reason, wav):
    soundfile.write(tmp_path / "x.wav", wav, RATE, subtype="FLOAT")
    found = Cutter(CFG, str(tmp_path / "out"), lambda cfg: Told([(0, 1)]))(
        source(tmp_path / "x.wav")
    )
    assert found["problem"][0] == reason


def test_a_flac_that_is_cut_off_lacks_seconds(tmp_path):
    wav = 0.1 * np.random.default_rng(0).normal(size=20 * RATE)
    soundfile.write(tmp_path / "x.flac", wav, RATE)
    content = (tmp_path / "x.flac").read_bytes()
    (tmp_path / "x.flac").write_bytes(content[: len(content) // 2])
    cutter = Cutter(CFG, str(tmp_path / "out"), lambda cfg: Told([(1, 5)]))
    found = cutter(source(tmp_path / "x.flac"))
    if found["problem"] is None:
        assert found["samples"] == 20 * RATE
        assert 0.3 < found["missing"] / found["samples"] < 0.7
    else:
        assert found["problem"][0] == "unreadable_audio"


@settings(max_examples=30)
@given(
    speech=st.lists(st.tuples(st.floats(0.05, 3), st.floats(0.05, 20)), max_size=12),
    texts=st.lists(st.sampled_from(["yes", "", "..."]), min_size=30, max_size=30),
    language=st.sampled_from(["en", "fr", "zh"]),
    confidence=st.sampled_from([None, 0.2, 0.9]),
)
def test_kept_and_dropped_are_the_duration(tmp_path_factory, speech, texts, language, confidence):
    folder = tmp_path_factory.mktemp("recording")
    spans, now = [], 0.0
    for silence, length in speech:
        spans.append((now + silence, now + silence + length))
        now += silence + length
    rate = 100
    soundfile.write(folder / "x.wav", np.full(int((now + 1) * rate), 0.1), rate)
    cfg = DataConfig(asr=AsrConfig(min_confidence=0.5))
    cutter = Cutter(cfg, str(folder / "out"), lambda asr: Told(spans))
    recording = source(folder / "x.wav")
    found = cutter(recording)
    done = Done({"x.wav": "1"})
    done.add({"cut": found})
    for number, text in enumerate(texts[: len(found["slices"])], start=1):
        heard = {"name": "x.wav", "version": "1", "number": number, "problem": None}
        heard |= {"text": text, "language": language, "confidence": confidence}
        done.add({"heard": heard})
    account = account_of(recording, "anna", done, cfg.asr)
    row = account.row()
    assert account.kept + account.dropped.total() == account.samples == found["samples"]
    assert row["kept"] + sum(row["dropped"].values()) == pytest.approx(row["seconds"], abs=1e-4)
    keeps = language != "fr" and confidence != 0.2
    assert row["kept_slices"] == keeps * sum(
        text == "yes" for text in texts[: len(found["slices"])]
    )

"""What is measured of recordings, held against recordings that were spoiled by known amounts."""

import io
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from data.quality.alike import copies, same_names, warnings_of_names
from data.quality.measures import MEASURES, measure, spectrogram
from data.quality.mirrored import source_rate

RATE = 44100
CORPUS = Path("job/presets/demo_corpus/wavs")
VOICES = ("en_f1/000", "en_m1/003", "jp_f1/003", "jp_m1/008", "zh_f1/006", "zh_m1/004")


@cache
def speech(name: str = VOICES[0]) -> np.ndarray:
    return soundfile.read(CORPUS / f"{name}.flac", dtype="float32")[0]


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(samples).astype(np.float32)


def in_16_bits(wav: np.ndarray) -> np.ndarray:
    return (np.clip(np.rint(wav * 32768), -32768, 32767) / 32768).astype(np.float32)


def measured(wav: np.ndarray, rate: int = RATE) -> dict:
    wav = in_16_bits(wav)
    found = measure(wav[:, None], wav, rate)
    assert list(found) == MEASURES.names
    return found


@pytest.mark.parametrize("name", VOICES)
def test_good_speech(name) -> None:
    found = measured(speech(name))
    assert found["clipped"] == 0
    assert found["snr"] > 35
    assert found["bandwidth"] > 6500
    assert found["silence"] < 0.2
    assert -25 < found["level"] < -10


@pytest.mark.parametrize("name", VOICES)
@pytest.mark.parametrize("level", [1, 0.3])
def test_clipping_is_found_whatever_the_level_is_now(name, level) -> None:
    assert measured(level * in_16_bits(20 * speech(name)))["clipped"] > 0.2
    stereo = np.stack([speech(name), level * in_16_bits(20 * speech(name))], axis=1)
    assert measure(stereo, stereo.mean(axis=1), RATE)["clipped"] > 0.2


def test_loud_is_not_clipped() -> None:
    assert measured(speech() / np.abs(speech()).max())["clipped"] < 0.001
    tone = np.sin(2 * np.pi * 150 * np.arange(RATE) / RATE)
    assert measured(0.9 * tone)["clipped"] == 0
    assert measured(np.zeros(RATE))["clipped"] == 0


@pytest.mark.parametrize("rate", [22050, 24000, 44100, 48000])
@pytest.mark.parametrize("source", [8000, 11025, 16000])
def test_bandwidth_is_that_of_the_source(rate, source) -> None:
    wav = soxr.resample(speech("jp_f1/003"), RATE, source)
    found = measured(soxr.resample(wav, source, rate), rate)["bandwidth"]
    assert 0.85 * source / 2 < found < 1.1 * source / 2


def repeated(wav: np.ndarray, old: int, new: int) -> np.ndarray:
    return wav[np.arange(len(wav) * new // old) * old // new]


def joined_by_lines(wav: np.ndarray, old: int, new: int) -> np.ndarray:
    return np.interp(np.arange(len(wav) * new // old) * old / new, np.arange(len(wav)), wav)


@pytest.mark.parametrize("upsampled", [repeated, joined_by_lines, soxr.resample])
@pytest.mark.parametrize("rate", [22050, 44100, 48000])
@pytest.mark.parametrize("source", [8000, 16000])
def test_images_above_the_band_of_the_source_do_not_count(source, rate, upsampled) -> None:
    for name in VOICES:
        wav = in_16_bits(soxr.resample(speech(name), RATE, source))
        found = measured(upsampled(wav, source, rate).astype(np.float32), rate)["bandwidth"]
        assert found < 1.1 * source / 2, name
        assert found > 0.6 * source / 2, name


@pytest.mark.parametrize("rate", [22050, 44100, 48000])
@pytest.mark.parametrize("ratio", [None, 20, 0])
def test_what_is_wide_has_no_images(rate, ratio) -> None:
    for path in sorted(CORPUS.glob("*/*.flac"))[::3]:
        wav = speech(str(path.relative_to(CORPUS).with_suffix("")))
        if ratio is not None:
            wav = wav + noise(len(wav)) * np.sqrt(np.square(wav).mean()) / 10 ** (ratio / 20)
        power = spectrogram(in_16_bits(soxr.resample(wav, RATE, rate)), rate)
        step = rate / (2 * (power.shape[1] - 1))
        assert source_rate(power, step, rate / 2) is None, path


@pytest.mark.parametrize("pitch", [100, 160, 200, 250, 400])
def test_one_pitch_mirrors_itself_everywhere_and_is_no_image(pitch) -> None:
    """The harmonics of 200 Hz lie mirrored around 4000 Hz, as around every hundred of Hz."""
    time = np.arange(2 * RATE) / RATE
    tones = sum(np.cos(2 * np.pi * k * pitch * time + k * k) / k for k in range(1, 20000 // pitch))
    spoken = 0.05 * np.abs(np.sin(2 * np.pi * 3 * time)) * tones
    assert measured(spoken.astype(np.float32))["bandwidth"] > 15000


@pytest.mark.parametrize("name", VOICES)
@pytest.mark.parametrize("ratio", [0, 5, 10, 15, 20, 30])
def test_noise_is_measured(name, ratio) -> None:
    added = noise(len(speech(name)), ratio)
    added *= np.sqrt(np.square(speech(name)).mean() / np.square(added).mean()) / 10 ** (ratio / 20)
    quieter = 0.5 * (speech(name) + added)
    assert measured(quieter)["snr"] == pytest.approx(ratio, abs=3.5 if ratio == 30 else 2)


def test_white_noise_alone_is_noise() -> None:
    for seed, seconds in enumerate([0.4, 1, 5, 20]):
        assert measured(0.1 * noise(int(seconds * RATE), seed))["snr"] < 0


def test_digital_silence_between_words_is_no_noise() -> None:
    whole = np.concatenate([speech(), np.zeros(RATE // 2), speech()])
    assert measured(whole)["snr"] > 60


def test_silence_is_a_share_of_the_time() -> None:
    whole = np.concatenate([speech(), np.zeros(3 * RATE), 1e-3 * noise(RATE)])
    spoken = len(speech()) / len(whole)
    assert measured(whole)["silence"] == pytest.approx(1 - spoken, abs=0.06)


@pytest.mark.parametrize("gain", [0.5, 0.1, 0.01])
def test_level_follows_the_gain_and_not_the_pauses(gain) -> None:
    loud = measured(speech())["level"]
    padded = np.concatenate([np.zeros(RATE), gain * speech()])
    assert measured(padded)["level"] == pytest.approx(loud + 20 * np.log10(gain), abs=0.5)


@pytest.mark.parametrize(("samples", "rate"), [(1, 1000), (30, 1000), (300, 44100), (9000, 384000)])
def test_little_is_measured_too(samples, rate) -> None:
    found = measured(0.1 * noise(samples), rate)
    assert all(np.isfinite(found[name]) for name in MEASURES.names[:-1])
    assert found["fingerprint"] is None
    assert 0 < found["bandwidth"] <= rate / 2


def coded(wav: np.ndarray, kind: str) -> np.ndarray:
    file = io.BytesIO()
    soundfile.write(file, wav, RATE, format=kind)
    file.seek(0)
    return soundfile.read(file, dtype="float32")[0]


def test_copies_in_other_clothes_are_found() -> None:
    names = sorted(path.relative_to(CORPUS).with_suffix("") for path in CORPUS.glob("*/*.flac"))
    wavs = [speech(str(name)) for name in names]
    assert len(wavs) == 54
    resampled = soxr.resample(in_16_bits(soxr.resample(wavs[0], RATE, 16000)), 16000, RATE)
    made = [coded(wavs[7], "MP3"), coded(wavs[20], "OGG"), 0.2 * wavs[33], resampled]
    every = [*wavs, *made]
    prints = np.array([measured(wav)["fingerprint"] for wav in every], np.uint64)
    lengths = np.array(list(map(len, every)))
    first = copies(prints, lengths, np.ones(len(every), bool))
    assert first.tolist() == [*range(54), 7, 20, 33, 0]
    # what is not known is nobody's copy, nor is another length
    assert copies(prints, lengths, np.arange(len(every)) < 54).tolist() == list(range(58))
    assert copies(prints, lengths * np.where(lengths == lengths[7], 2, 1), prints > 0)[54] != 20


def test_names_that_people_would_take_for_one() -> None:
    names = [
        "Amy",
        "amy",
        "Ａｍｙ",
        "Bob_1",
        "bob-1",
        "bob 11",
        "Bob_1_1",
        "小明",
        "小紅",
        "é",
        "e",
    ]
    assert same_names(names) == [["Amy", "amy", "Ａｍｙ"], ["Bob_1", "bob-1"]]
    assert same_names(["a\u200bmy", "amy", "cafe\u0301", "caf\xe9"]) == [
        ["amy", "a\u200bmy"],
        ["cafe\u0301", "caf\xe9"],
    ]
    (told,) = warnings_of_names(["Amy", "amy", "Ben"])
    assert "'Amy', 'amy' are 2 voices" in told

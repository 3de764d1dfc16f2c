"""A voice speaks: languages and their mixtures, seeds, batches, sentences."""

from dataclasses import replace

import numpy as np
import pytest

from job.voice.voice import SpeechRequest, Voice
from tests.job.voices import SAID, tiny_voice


@pytest.fixture(scope="module")
def voice(tmp_path_factory):
    return tiny_voice(tmp_path_factory.mktemp("voice"))


@pytest.fixture(scope="module")
def speeches():
    """One in each language, with settings of its own."""
    styles = (
        {"seed": 1},
        {"length_scale": 1.3, "noise_scale_w": 0.3},
        {"noise_scale": 0.9, "sdp_ratio": 1.0},
    )
    said = zip(SAID.items(), styles, strict=True)
    return [
        SpeechRequest(text, speaker, language, **style)
        for (language, (speaker, text)), style in said
    ]


@pytest.fixture(scope="module")
def alone(voice, speeches):
    return [voice.say(speech) for speech in speeches]


def test_every_language_is_spoken(voice, speeches, alone):
    for speech, wave in zip(speeches, alone, strict=True):
        assert wave.dtype == np.float32
        assert len(wave) % voice.data.hop_length == 0
        phones = len(voice.read(speech).reading.x) // 2
        assert 0.02 < len(wave) / voice.data.sampling_rate / phones < 0.3  # seconds a phone
        assert np.isfinite(wave).all()
        assert wave.std() > 1e-3


@pytest.mark.medium
def test_a_batch_gives_what_each_gives_alone(voice, speeches, alone):
    """Whatever the neighbours are, though they are longer and have other settings."""
    utterances = [voice.read(speech) for speech in speeches]
    for order in ([0, 1, 2], [2, 0]):
        for i, wave in zip(order, voice.speak([utterances[i] for i in order]), strict=True):
            assert wave.shape == alone[i].shape
            assert np.abs(wave - alone[i]).max() < 1e-5


@pytest.mark.medium
def test_seeds(voice, speeches, alone):
    assert np.array_equal(voice.say(speeches[0]), alone[0])
    other = voice.say(replace(speeches[0], seed=2))
    assert other.shape != alone[0].shape or not np.allclose(other, alone[0])
    still = [
        voice.say(replace(speeches[0], noise_scale=0.0, noise_scale_w=0.0, seed=seed))
        for seed in (0, 1)
    ]
    assert np.array_equal(*still)


def test_settings_are_heard(voice, speeches, alone):
    # untrained, it says most phones in less than the one frame that each gets
    assert len(voice.say(replace(speeches[0], length_scale=10.0))) > 1.5 * len(alone[0])
    another = voice.say(replace(speeches[0], speaker="en"))
    assert another.shape != alone[0].shape or not np.allclose(another, alone[0])


@pytest.mark.medium
def test_languages_mix(voice):
    mixed = SpeechRequest("[ZH]你好，[EN]my friend, [JP]ありがとう。", "zh")
    wave = voice.say(mixed)
    assert np.isfinite(wave).all()
    assert np.array_equal(wave, voice.say(mixed))
    parts = [
        voice.say(SpeechRequest(text, "zh"))
        for text in ("[ZH]你好，", "[EN]my friend,", "[JP]ありがとう。")
    ]
    assert 0.6 < len(wave) / sum(map(len, parts)) < 1.1


@pytest.mark.medium
def test_noise_in_place_of_the_languages_that_are_not_spoken(voice, speeches, tmp_path):
    data = replace(voice.data, bert=replace(voice.data.bert, inactive="noise"))
    noisy = Voice(voice.g, data, voice.info)
    first, again = (
        noisy.say(speeches[0]),
        noisy.speak([noisy.read(speech) for speech in speeches])[0],
    )
    assert first.shape == again.shape
    assert np.abs(first - again).max() < 1e-5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"speaker": "nobody"}, r"no speaker 'nobody' \(this voice has: en, jp, zh\)"),
        ({"language": "FR"}, "no language 'FR'; choose of ZH, JP, EN"),
        ({"text": "[JP]あ[ZH]😀"}, "empty_text"),
        ({"sdp_ratio": 1.5}, "sdp_ratio is 1.5: give a share from 0 to 1"),
        ({"noise_scale": -1.0}, "noise_scale is -1.0: give a number from 0 to 10"),
        ({"noise_scale_w": float("nan")}, "noise_scale_w is nan: give a number from 0 to 10"),
        ({"length_scale": 0.0}, "length_scale is 0.0: give a factor from 0.01 to 100"),
        ({"seed": 2**64}, "give a number of 64 bits"),
    ],
)
def test_mistakes_say_what_to_change(voice, change, message):
    with pytest.raises(ValueError, match=message):
        voice.read(SpeechRequest(**{"text": "Hello.", "speaker": "en", "language": "EN"} | change))

"""The numbers that published weights index their embeddings with."""

import pytest

from data.text.languages import PUBLISHED, count_tones
from data.text.symbols import SYMBOLS, first_tone, language_id, phone_ids, symbols, tone_ids


def test_counts():
    assert len(SYMBOLS) == len(set(SYMBOLS)) == len(symbols(PUBLISHED)) == 112
    assert count_tones(PUBLISHED) == 12


def test_numbers_of_published_weights():
    assert phone_ids(["_", "AA", "a", "zy", "!", "SP", "UNK"]) == [0, 1, 8, 102, 103, 110, 111]


def test_tones_of_languages_follow_each_other():
    taken = [tone for own in PUBLISHED for tone in tone_ids(range(own.tones), own.code)]
    assert taken == list(range(12))
    assert {own.code: first_tone(own.code) for own in PUBLISHED} == {"ZH": 0, "JP": 6, "EN": 8}


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: phone_ids(["a", "qq"]), "qq"),
        (lambda: tone_ids([0, 2], "JP"), "JP has the tones 0 to 1"),
        (lambda: tone_ids([-1], "ZH"), "-1"),
        (lambda: language_id("FR"), "FR"),
    ],
)
def test_errors_name_what_is_wrong(call, named):
    with pytest.raises(ValueError, match=named):
        call()

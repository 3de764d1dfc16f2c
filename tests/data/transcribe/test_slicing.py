"""Where recordings are cut: at silences, into slices of 2 to 12 seconds, and nothing is lost."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.settings.asr import AsrConfig
from data.transcribe.slicing import Slice, Span, slices_of

CFG = AsrConfig(margin=0.1, join_pause=0.8)
STEPS = st.lists(
    st.tuples(st.floats(0.1, 3.0), st.floats(0.1, 30.0)), min_size=0, max_size=30
)  # silence, speech


def cut(speech: list[Span], duration: float, cfg: AsrConfig = CFG) -> list[Slice]:
    return slices_of(speech, duration, cfg, lambda begin, end: (begin + end) / 2)


def bounds(slices: list[Slice]) -> list[Span]:
    return [(round(each.begin, 3), round(each.end, 3)) for each in slices]


def test_pauses_end_slices_and_shorter_silences_do_not():
    speech = [(1.0, 3.0), (3.3, 5.0), (5.6, 8.0)]
    assert bounds(cut(speech, 9.0)) == [(0.9, 5.1), (5.5, 8.1)]


def test_what_is_short_joins_its_nearer_neighbour():
    speech = [(1.0, 4.0), (4.7, 5.2), (5.8, 9.0)]
    assert bounds(cut(speech, 10.0)) == [(0.9, 4.1), (4.6, 9.1)]
    speech = [(1.0, 4.0), (4.6, 5.2), (5.9, 9.0)]
    assert bounds(cut(speech, 10.0)) == [(0.9, 5.3), (5.8, 9.1)]


def test_what_is_short_and_alone_stays():
    assert bounds(cut([(1.0, 4.0), (5.0, 5.6), (7.0, 9.0)], 10.0))[1] == (4.9, 5.7)


def test_what_is_long_is_cut_at_its_longest_silence():
    speech = [(1.0, 6.0), (6.2, 9.0), (9.4, 12.0), (12.1, 15.0)]
    slices = cut(speech, 16.0)
    assert bounds(slices) == [(0.9, 9.1), (9.3, 15.1)]
    assert not any(each.forced for each in slices)


def test_no_short_piece_is_cut_off():
    """The longest silence is 1 s before the end: the other one is taken."""
    assert bounds(cut([(1.0, 7.0), (7.2, 13.0), (13.4, 14.0)], 15.0)) == [(0.9, 7.1), (7.1, 14.1)]


def test_speech_without_silence_is_cut_where_it_is_least_likely():
    asked = []

    def quietest(begin: float, end: float) -> float:
        asked.append((begin, end))
        return 9.5

    slices = slices_of([(1.0, 15.0)], 16.0, CFG, quietest)
    assert bounds(slices) == [(0.9, 9.5), (9.5, 15.1)]
    assert all(each.forced for each in slices)
    assert asked == [(pytest.approx(6.9), pytest.approx(12.8))]


def test_margins_end_with_the_recording_and_meet_between_neighbours():
    assert bounds(cut([(0.02, 3.0)], 3.05)) == [(0.0, 3.05)]


@given(STEPS)
def test_all_speech_is_in_slices_that_do_not_overlap(steps):
    speech, now = [], 0.0
    for silence, length in steps:
        speech.append((now + silence, now + silence + length))
        now += silence + length
    slices = cut(speech, now + 0.5)
    for before, after in pairwise(slices):
        assert before.end <= after.begin + 1e-6
    for each in slices:
        assert -1e-9 <= each.begin < each.end <= now + 0.5
        assert each.end - each.begin <= CFG.max_seconds + 1e-6
    for begin, end in speech:
        held = sum(max(0.0, min(end, each.end) - max(begin, each.begin)) for each in slices)
        assert held == pytest.approx(end - begin)

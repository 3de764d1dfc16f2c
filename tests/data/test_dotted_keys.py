"""Sections become dotted keys, and dotted keys sections."""

from types import SimpleNamespace

from data.settings.dotted_keys import assign, attribute, flat, nested

SECTIONS = {"a": {"b": {"c": 1, "d": [2]}, "e": {}}, "f": None}
KEYS = {"a.b.c": 1, "a.b.d": [2], "a.e": {}, "f": None}


def test_there_and_back():
    assert flat(SECTIONS) == KEYS
    assert nested(KEYS) == SECTIONS


def test_a_section_may_be_a_value():
    assert flat(SECTIONS, whole={"a.b"}) == {"a.b": {"c": 1, "d": [2]}, "a.e": {}, "f": None}


def test_a_single_key_is_set_and_read():
    sections = {"a": {"b": 1}}
    assign(sections, "a.c.d", 2)
    assert sections == {"a": {"b": 1, "c": {"d": 2}}}
    assert attribute(SimpleNamespace(a=SimpleNamespace(b=3)), "a.b") == 3

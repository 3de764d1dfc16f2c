"""English: numbers, the dictionary, words that it lacks, and pieces that share a word's phones."""

import subprocess
import sys

import pytest

from data.text.english import front_end as english
from data.text.english.front_end import EnglishFrontEnd, cut_simply, normalise
from data.text.english.gru import guess
from data.text.english.words import in_compound, read_word


@pytest.mark.parametrize(
    ("text", "normalised"),
    [
        ("365 pages", "three hundred sixty-five pages"),
        ("in 1998, 2000 and 2007", "in nineteen ninety-eight, two thousand and two thousand seven"),
        ("in 1905 and 1900", "in nineteen oh five and nineteen hundred"),
        (
            "$12.50, $1, $0.99, $0",
            "twelve dollars, fifty cents, one dollar, ninety-nine cents, zero dollars",
        ),
        ("£9", "nine pounds"),
        ("3.5 or 1,000,000", "three point five or one million"),
        ("3rd", "third"),
        ("$1.5 or 1,000th", "one dollar, five cents or one thousandth"),
        ("Stop.Go “now”…", "Stop. Go 'now'..."),
        ("(One)\ntwo ~ [three]\n", "'One'. two - 'three'"),
        ("1" * 40, " ".join(["one"] * 40)),
    ],
)
def test_normalise(text, normalised):
    assert normalise(text) == normalised


def spoken(word):
    return " ".join(phone for phone, _ in read_word(word))


@pytest.mark.parametrize(
    ("word", "phones"),
    [
        ("Cat", "k ae t"),
        ("don't", "d ow n t"),
        ("café", "k ah f ey"),
        ("snow-cat", "s n ow - k ae t"),
        ("voice", "V oy s"),
        ("Ｆｕｌｌ", "f uh l"),
        ("and", "ae n d"),
        ("here", "hh ih r"),
        ("keeper's", "k iy p er z"),
        ("FBI", "b ay"),
        ("www", "w ah f"),
        ("你好", ""),
        ("&", ""),
    ],
)
def test_read_word(word, phones):
    assert spoken(word) == phones


def test_tones_are_stress():
    assert read_word("banana") == (("b", 3), ("ah", 1), ("n", 3), ("ae", 2), ("n", 3), ("ah", 1))


@pytest.mark.parametrize(
    ("word", "phones"),
    [
        ("kubernetes", "K AH0 B ER1 N AH0 T S"),
        ("debian", "D EH1 B IY0 AH0 N"),
        ("granddaughter's", "G R AE1 N D AO2 T ER0 Z"),
    ],
)
def test_guesses_are_those_of_the_published_network(word, phones):
    assert guess(word) == phones


def test_a_guess_ends():
    assert len(guess("blorf" * 100).split()) <= 20


def test_simple_pieces():
    assert cut_simply("Well, it's x-rayed.") == [
        "▁Well",
        ",",
        "▁it",
        "'",
        "s",
        "▁x",
        "-",
        "rayed",
        ".",
    ]


def read(pieces):
    return EnglishFrontEnd(tokenizer=lambda text: pieces, normaliser="reference")("said")


def test_pieces_are_read_one_by_one_and_share_the_phones():
    result = read(["▁well", "-", "known", "."])
    assert " ".join(result.phones) == "_ w eh l - n ow n . _"
    assert result.word2ph == [1, 3, 2, 2, 1, 1]
    assert result.bert_tokens == ["▁well", "-", "known", "."]


@pytest.mark.parametrize(
    "text, pieces",
    [
        ("cow", ["▁c", "ow"]),
        ("Bath park", ["▁B", "ath", "▁par", "k"]),
        ("well-known, he said", ["▁we", "ll", "-", "known", ",", "▁he", "▁sa", "id"]),
        ("Zuckerberg's", ["▁Z", "uck", "erberg", "'", "s"]),
        ("a voicebank", ["▁a", "▁vo", "iceb", "ank"]),
    ],
)
def test_our_readings_do_not_depend_on_the_tokenizer(text, pieces):
    cut = EnglishFrontEnd(tokenizer=lambda _: pieces)(text)
    whole = EnglishFrontEnd()(text)
    assert (cut.phones, cut.tones) == (whole.phones, whole.tones)
    assert len(cut.word2ph) == len(pieces) + 2


@pytest.mark.parametrize(
    "compound, parts",
    [
        ("voicebank", ["voice", "bank"]),
        ("Timestamp", ["time", "stamp"]),
        ("kubernetes", ["kubernetes"]),
        ("firewall", ["firewall"]),
    ],
)
def test_a_compound_is_read_as_its_two_words(compound, parts):
    assert in_compound(compound) == parts


def test_an_apostrophe_joins_pieces():
    assert read(["▁do", "n", "'", "t"]).phones == ["_", "d", "ow", "n", "t", "_"]


def test_a_piece_may_have_no_phones():
    assert read(["▁hello", "▁", "你"]).word2ph == [1, 4, 0, 0, 1]


def test_without_a_tokenizer_there_are_no_bert_tokens():
    assert EnglishFrontEnd()("Hello there.").bert_tokens is None


def test_the_tokenizer_is_part_of_the_data_hash():
    class Tokenizer:
        identity = "abc"

        def __call__(self, text):
            return text.split()

    assert EnglishFrontEnd(Tokenizer()).data_hash().endswith("abc")
    assert EnglishFrontEnd(Tokenizer()).data_hash() != EnglishFrontEnd().data_hash()


@pytest.mark.parametrize("file", ["DICTIONARY_FILE", "WEIGHTS_FILE"])
def test_other_data_have_another_hash(monkeypatch, tmp_path, file):
    before = EnglishFrontEnd().data_hash()
    (tmp_path / "data").write_bytes(b"other")
    monkeypatch.setattr(english, file, tmp_path / "data")
    assert EnglishFrontEnd().data_hash() != before


@pytest.mark.processes
def test_front_ends_say_nothing_on_their_own():
    code = (
        "from data.text.front_end import get_front_end\n"
        "for language, text in {'ZH': '你好', 'JP': 'はい', 'EN': 'Yes'}.items():\n"
        "    front_end = get_front_end(language)\n"
        "    front_end.data_hash(), front_end(text)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")

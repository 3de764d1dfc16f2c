"""The small voice's corpus: the same texts each time, and held-back ones that can be heard."""

import json
import sys
from pathlib import Path

import pytest

from tools import make_voice_corpus
from tools.make_voice_corpus import held_out, texts
from trainable.evaluation.scorers import ClosedSetRecogniser

FLITE = f"""#!{sys.executable}
import sys, wave
with wave.open(sys.argv[sys.argv.index("-o") + 1], "wb") as file:
    file.setparams((1, 2, 16000, 0, "NONE", ""))
    file.writeframes(bytes(len(sys.argv[sys.argv.index("-t") + 1])))
"""


def test_texts_are_the_same_each_time_and_none_is_held_back():
    made = texts(300)
    assert made == texts(300)
    assert len(set(made)) == 300
    assert not set(made) & set(held_out())
    assert not any(mark in text for text in made for mark in "{}")


def test_the_recogniser_knows_every_word_that_is_held_back():
    assert len(set(held_out())) == 50
    ClosedSetRecogniser(held_out())


@pytest.mark.processes
def test_the_transcript_names_what_was_spoken(tmp_path: Path, monkeypatch):
    (tmp_path / "flite").write_text(FLITE, encoding="utf-8")
    (tmp_path / "flite").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}")
    monkeypatch.setattr(make_voice_corpus, "held_out", lambda: ["A held-back sentence."])
    out = tmp_path / "corpus"
    monkeypatch.setattr(sys, "argv", ["corpus", "--out", str(out), "--texts", "2"])
    make_voice_corpus.main()
    lines = [json.loads(line) for line in (out / "transcript.jsonl").read_text().splitlines()]
    assert [line["split"] for line in lines] == ["train", "train", "validation"]
    assert all((out / line["path"]).stat().st_size > 44 for line in lines)


def test_without_flite_it_says_what_to_install(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["corpus", "--out", str(tmp_path / "corpus")])
    with pytest.raises(SystemExit, match="apt-get install flite"):
        make_voice_corpus.main()
    assert not (tmp_path / "corpus").exists()

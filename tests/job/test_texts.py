"""How texts are read: the user's words, the normaliser of older shards, and what nothing reads."""

import contextlib
import json
import shutil

import pytest
import yaml

import job.prepare
from data.bert.reading import TextReader
from data.corpus.prepared import as_prepared
from data.shards.manifest import read_manifest
from data.text.marked import Part
from data.text.symbols import symbol_ids
from job.settings.cli import read_config, read_saved_config, to_yaml
from tests.data.corpus.without_ray import without_ray, write_sound
from tests.job.conftest import DEMO, overrides
from tests.job.test_bad_input import error_of
from tests.job.test_prepared_settings import configuration

pytestmark = pytest.mark.medium  # corpora are prepared, which takes seconds together

ROWS = [
    ("a", "EN", "Good morning, Nguyen."),
    ("a", "en", "It costs $5 now."),
    ("b", "EN", "He is here 😀."),
    ("b", "EN", "今天天气 fine"),
]
READINGS = "EN:\n  Nguyen: W IH1 N\nZH:\n  单田芳: shan4 tian2 fang1\n"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    rows = []
    for number, (speaker, language, text) in enumerate(ROWS):
        write_sound(folder / f"{number}.wav", number)
        row = {"path": f"{number}.wav", "speaker": speaker, "language": language, "text": text}
        rows.append(json.dumps(row))
    (folder / "esd.jsonl").write_text("\n".join(rows))
    (folder / "words.yaml").write_text(READINGS, encoding="utf-8")
    return folder


def prepared_by(corpus, shards, **options: object) -> str:
    """Prepare; return what was printed."""
    base = {
        "data__transcript": corpus / "esd.jsonl",
        "data__shards": shards,
        "data__max_reject_share": 0.5,
    }
    with pytest.MonkeyPatch.context() as patch:
        without_ray(patch)
        patch.setattr(job.prepare, "ray_session", contextlib.nullcontext)
        assert job.prepare.main(["--config", str(DEMO), *overrides(**base | options)]) == 0
    return shards


@pytest.fixture(scope="module")
def shards(corpus):
    return prepared_by(corpus, corpus / "shards", data__text__readings=corpus / "words.yaml")


def test_what_nothing_reads_is_counted_and_too_much_is_rejected(shards):
    lines = [json.loads(line) for line in (shards / "unread.jsonl").read_text("utf-8").splitlines()]
    assert [(line["line"], line["unread"]) for line in lines] == [(3, "😀"), (4, "今天天气")]
    (reject,) = map(json.loads, (shards / "rejects.jsonl").read_text("utf-8").splitlines())
    assert (reject["line"], reject["reason"]) == (4, "unread")
    assert "no rule reads 4 of its 8 characters (今 天 气)" in reject["detail"]
    assert "is the language right?" in reject["detail"]
    report = (shards / "report.html").read_text("utf-8")
    assert "Characters that no rule reads" in report
    assert "grinning face" in report
    counts = read_manifest(str(shards)).header["counts"]
    characters = sum(len(text.replace(" ", "")) for _, _, text in ROWS)
    assert (counts["characters"], counts["unread"]) == (characters, 5)


def test_a_preparation_that_computes_nothing_counts_the_same(corpus, shards, capsys):
    before = (shards / "unread.jsonl").read_bytes()
    prepared_by(corpus, shards, data__text__readings=corpus / "words.yaml")
    printed = capsys.readouterr().out
    assert "0 of 3 rows are computed" in printed
    assert "no rule reads 5 of" in printed
    assert (shards / "unread.jsonl").read_bytes() == before
    prepared_by(
        corpus, shards, data__text__readings=corpus / "words.yaml", data__max_unread_share=0.6
    )
    assert "1 of 4 rows are computed" in capsys.readouterr().out


def test_words_are_kept_with_the_run_and_spoken_alike(corpus, shards, tmp_path):
    cfg = configuration(corpus, data__shards=shards, data__text__readings=corpus / "words.yaml")
    assert cfg.data.text.readings is None
    assert cfg.data.text.words == yaml.safe_load(READINGS)
    (tmp_path / "config.yaml").write_text(to_yaml(cfg), encoding="utf-8")
    saved = read_saved_config(tmp_path / "config.yaml")
    assert saved.data.text == cfg.data.text
    reading = TextReader(saved.data)([Part("EN", "Nguyen")])
    names = {number: name for name, number in symbol_ids().items()}
    assert [names[number] for number in reading.x[1::2]] == ["_", "w", "ih", "n", "_"]


def test_words_are_part_of_the_content_address(corpus, shards, tmp_path):
    others = prepared_by(corpus, tmp_path / "others")
    with_words, without = (
        read_manifest(str(folder)).header["front_ends"]["EN"] for folder in (shards, others)
    )
    assert with_words.startswith(without + "-readings-")


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("ZH:\n  单田芳: shan tian fang\n", "words.yaml:2: 'shan tian fang': shan is no syllable"),
        ("ZH:\n  好: hao3\n  坏: huai9\n", "words.yaml:3: 'huai9': huai9 is no syllable"),
        ("JP:\n  百鬼: nakiri\n", "words.yaml:2: 'nakiri': give kana"),
        ("EN:\n  Ng: E N G\n", "words.yaml:2: 'E N G': E is no phone of ARPAbet"),
        ("EN:\n  Ng: / qq:1\n", "words.yaml:2: '/ qq:1' of Ng has phones that there are not"),
        ("EN:\n  Ng: / n:9\n", "words.yaml:2: '/ n:9' of Ng: EN has the tones 0 to 3"),
        ("EN:\n  a: AH0\n  a: EY1\n", "words.yaml:3: a stands in line 2 already"),
        ("FR:\n  bon: b\n", "words.yaml:1: no language 'FR'"),
        ("EN:\n  Ng: [N]\n", "words.yaml:2: give the reading of Ng as one text"),
        ("- Ng\n", "words.yaml:1: give a table of language: words"),
        ("EN: {Ng: N\n", "words.yaml:2: no YAML"),
        ("EN:\n  '!': N\n", "words.yaml:2: '!' has no letter"),
    ],
)
def test_a_reading_that_is_none_is_refused_with_its_line(call, corpus, tmp_path, written, told):
    path = tmp_path / "words.yaml"
    path.write_text(written, encoding="utf-8")
    base = {"data__transcript": corpus / "esd.jsonl", "data__shards": tmp_path / "shards"}
    options = overrides(**base | {"data__text__readings": path})
    message = error_of(call("job.prepare", "--config", DEMO, *options))
    assert f"{tmp_path}/{told}" in message
    assert not (tmp_path / "shards").exists()


def test_shards_and_voices_of_older_code_keep_the_reference(corpus, tmp_path):
    folder = prepared_by(corpus, tmp_path / "shards", data__text__normaliser="reference")
    header = read_manifest(str(folder)).header
    assert header["front_ends"]["EN"].startswith("en-2 ")
    del header["prepared"]["settings"]["text.normaliser"]  # as older code wrote it
    cfg = configuration(corpus, data__shards=folder)
    assert cfg.data.text.normaliser == "ours"
    assert as_prepared(cfg.data, header).text.normaliser == "reference"

    content = yaml.safe_load(to_yaml(cfg))
    del content["data"]["text"]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(content))
    assert read_saved_config(tmp_path / "config.yaml").data.text.normaliser == "reference"
    assert read_config(DEMO).data.text.normaliser == "ours"


def test_another_normaliser_than_that_of_the_shards_is_refused(call, corpus, shards, tmp_path):
    copy = shutil.copytree(shards, tmp_path / "shards")
    base = {"data__transcript": "", "data__shards": copy, "run__storage": tmp_path / "runs"}
    options = {"data__text__normaliser": "reference", "data__max_unread_share": 0.6}
    message = error_of(call("job.train", "--config", DEMO, *overrides(**base | options)))
    assert "data.text.normaliser ours, the configuration has reference" in message
    assert "data.text.readings 2 words" in message

"""Public corpora and lists of other trainers are read as they lie, or name the key to set."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import data.layouts.placing
from data.audio.recording import read_audio
from data.config import BertConfig, DataConfig
from data.corpus.prepare import prepare
from data.corpus.prepared import check_prepared
from data.corpus.transcript import Transcript, read_transcript, transcript_digest
from data.layouts.known import BY_NAME
from data.settings.declared import declared
from job.prepare import main
from tests.data.corpus.without_ray import without_ray, write_sound

# layout -> files of an instance of it; .wav and the like are recordings
TREES = {
    "ljspeech": {
        "amy/metadata.csv": "A-1|It is 10.|It is ten.\r\nA-2|No.|\r\nA-3|Gone.|Gone.\r\n",
        "amy/wavs/A-1.wav": "",
        "amy/wavs/A-2.wav": "",
    },
    "vctk": {
        "txt/p226/p226_002.txt": "Ask her.\r\n",
        "txt/p226/p226_003.txt": "Gone.",
        "txt/s5/s5_001.txt": "Please call.\n",
        "wav48_silence_trimmed/p226/p226_002_mic2.flac": "",
        "wav48_silence_trimmed/s5/s5_001_mic1.flac": "",
        "speaker-info.txt": "ID AGE\n",
    },
    "libritts": {
        "dev-clean/84/121123/84_121123_000007_000001.normalized.txt": "One.",
        "dev-clean/84/121123/84_121123_000007_000001.original.txt": "1.",
        "dev-clean/84/121123/84_121123_000007_000001.wav": "",
        "dev-clean/174/50561/174_50561_000002.normalized.txt": "Two.\n",
        "dev-clean/174/50561/174_50561_000002.wav": "",
        "dev-clean/174/50561/174_50561_000003.normalized.txt": "Gone.",
        "SPEAKERS.txt": "14 | F\n",
    },
    "aishell3": {
        "test/content.txt": "SSB00730001.wav\t你 ni3 好 hao3\r\n"
        "SSB00730002.wav\t再 zai4 见 jian4\r\n"
        "SSB04340001.wav\t没 mei2 有 you3\r\n",
        "test/wav/SSB0073/SSB00730001.wav": "",
        "test/wav/SSB0434/SSB04340001.wav": "",
        "spk-info.txt": "SSB0073\tB\n",
    },
    "jsut": {
        "onomatopee300/transcript_utf8.txt": "ONO_001:さらさら。\r\nONO_002:ない。\r\n",
        "onomatopee300/wav/ONO_001.wav": "",
        "loanword128/transcript_utf8.txt": "LOAN_001:駅: 東京。\n",
        "loanword128/wav/LOAN_001.wav": "",
    },
    "jvs": {
        "jvs002/nonpara30/transcripts_utf8.txt": "B-1:はい。\nB-2:ない。\n",
        "jvs002/nonpara30/wav24kHz16bit/B-1.wav": "",
        "jvs100/whisper10/transcripts_utf8.txt": "B-1:いいえ。\n",
        "jvs100/whisper10/wav24kHz16bit/B-1.wav": "",
    },
    "common_voice": {
        "zh-CN/validated.tsv": "client_id\tpath\tsentence\tup_votes\tlocale\r\n"
        'c1\tcv_1.mp3\t他说"好"。\t2\tzh-CN\r\nc2\tcv_2.mp3\t没有。\t2\tzh-CN\r\n'
        "c1\tcv_3.mp3\t再见。\t2\tzh-CN\r\n",
        "zh-CN/train.tsv": "client_id\tpath\tsentence\tup_votes\tlocale\r\n",
        "zh-CN/clips/cv_1.mp3": "",
        "zh-CN/clips/cv_3.mp3": "",
    },
    "sbv2": {
        "Data/mika/esd.list": "a/1.wav|mika|JP|はい。\r\na/2.wav|mika|EN|Yes.\r\n"
        "3.wav|mika|ZH|好。\r\n",
        "Data/mika/raw/a/1.wav": "",
        "Data/mika/raw/a/2.wav": "",
    },
    "gpt_sovits": {
        "output/asr_opt/slices.list": "D:\\gpt\\output\\slices\\1.wav|slices|ja|はい。\n"
        "D:\\gpt\\output\\slices\\2.wav|slices|zh|好。\nD:\\gpt\\output\\slices\\3.wav|slices|en|No.\n",
        "output/slices/1.wav": "",
        "output/slices/3.wav": "",
    },
    "melotts": {
        "data/voice/metadata.list": "data/voice/wavs/1.wav|EN-US|EN|Yes.\n"
        "data/voice/wavs/2.wav|EN-US|EN|Gone.\ndata/voice/wavs/3.wav|ZH-1|ZH|好。\n",
        "data/voice/wavs/1.wav": "",
        "data/voice/wavs/3.wav": "",
    },
    "vits": {
        "filelists/three_train_filelist.txt": "DUMMY1/1.wav|12|Yes.\nDUMMY1/2.wav|12|No.\n"
        "DUMMY1/3.wav|7|Gone.\n",
        "DUMMY1/1.wav": "",
        "DUMMY1/2.wav": "",
    },
    "audiofolder": {
        "set/validation/metadata.csv": 'file_name,sentence,speaker_id\r\nx/1.wav,"Yes, sir.",3\r\n'
        "x/2.wav,No.,4\r\n3.wav,Gone.,4\r\n",
        "set/validation/x/1.wav": "",
        "set/validation/x/2.wav": "",
    },
    "esd": {
        "esd.list": "wavs/1.flac|anna|en-US|Yes.\r\nwavs/2.flac|ben|EN|No.\nwavs/3.flac|a|EN|Gone.",
        "wavs/1.flac": "",
        "wavs/2.flac": "",
    },
}
WITHOUT_LANGUAGE = {"vits", "audiofolder"}
SPEAKERS = {
    "ljspeech": {"amy"},
    "vctk": {"p226", "s5"},
    "libritts": {"84", "174"},
    "aishell3": {"SSB0073", "SSB0434"},
    "jsut": {"JSUT"},
    "jvs": {"jvs002", "jvs100"},
    "common_voice": {"c1", "c2"},
    "vits": {"12", "7"},
    "audiofolder": {"3", "4"},
}


def test_every_layout_has_a_name_in_the_configuration() -> None:
    assert {"auto", *BY_NAME} == set(get_args(declared(DataConfig)["layout"]))


def plant(folder: Path, tree: dict[str, str]) -> None:
    for name, content in tree.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() or name.encode())


def check_lines(name: str, transcript: Transcript) -> None:
    """All three lines are there; two of their recordings are."""
    lines = list(transcript.lines)
    assert not transcript.rejects
    assert len(lines) == 3
    assert [Path(line.uri).is_file() for line in lines].count(True) == 2
    gone = next(line for line in lines if not Path(line.uri).is_file())
    assert len({line.id for line in lines}) == 3
    assert SPEAKERS.get(name, {gone.speaker}) <= {line.speaker for line in lines}
    assert not any("\r" in line.text or " " in line.text[-1:] for line in lines)


@pytest.mark.parametrize("name", TREES)
def test_a_folder_is_read_as_it_lies(tmp_path, name) -> None:
    plant(tmp_path, TREES[name])
    uri, language = str(tmp_path), None
    if name in WITHOUT_LANGUAGE:
        with pytest.raises(ValueError, match=r"says the language of its lines: set data\.language"):
            read_transcript(uri)
        language = "en"
    found = read_transcript(uri, language=language)
    check_lines(name, found)
    named = read_transcript(uri, layout=name, language=language)
    assert list(named.lines) == list(found.lines)
    assert transcript_digest(uri, language=language) == found.digest
    assert transcript_digest(uri, layout=name, language=language) == named.digest


@pytest.mark.parametrize("name", [n for n in TREES if BY_NAME[n].form != "text" and n[0] != "j"])
def test_a_file_is_recognised_alone(tmp_path, name) -> None:
    plant(tmp_path, TREES[name])
    file = next(iter(TREES[name]))
    language = "en" if name in WITHOUT_LANGUAGE else None
    check_lines(name, read_transcript(str(tmp_path / file), language=language))


def test_texts_are_those_that_are_spoken(tmp_path) -> None:
    plant(
        tmp_path, {f"{name}/{path}": text for name in TREES for path, text in TREES[name].items()}
    )

    def texts(way: str, **settings: str) -> list[str]:
        return [line.text for line in read_transcript(str(tmp_path / way), **settings).lines]

    assert texts("ljspeech") == ["It is ten.", "No.", "Gone."]
    assert texts("aishell3") == ["你好", "再见", "没有"]
    assert texts("jsut") == ["駅: 東京。", "さらさら。", "ない。"]
    assert texts("common_voice")[0] == '他说"好"。'
    assert texts("audiofolder", language="EN")[0] == "Yes, sir."


def test_a_list_with_the_speaker_last_and_one_without(tmp_path) -> None:
    plant(
        tmp_path, {"a.txt": "1.wav|It is so.|0\n2.wav|Yes.|0\n", "b.txt": "1.wav|So.\n2.wav|No.\n"}
    )
    last = read_transcript(str(tmp_path / "a.txt"), language="EN").lines
    assert [(line.speaker, line.text) for line in last] == [("0", "It is so."), ("0", "Yes.")]
    without = read_transcript(str(tmp_path / "b.txt"), language="EN").lines
    assert [(line.speaker, line.text) for line in without] == [
        (tmp_path.name, "So."),
        (tmp_path.name, "No."),
    ]


def test_audio_root_says_where_recordings_are(tmp_path) -> None:
    plant(tmp_path, {"lists/metadata.csv": "a|Yes.\nb|No.\n", "sounds/b.wav": ""})
    root = str(tmp_path / "sounds")
    lines = read_transcript(str(tmp_path / "lists/metadata.csv"), root).lines
    assert [line.uri for line in lines] == [f"{root}/a.wav", f"{root}/b.wav"]


def test_a_store_that_does_not_answer_is_asked_once(tmp_path, monkeypatch) -> None:
    plant(tmp_path, {"esd.list": "".join(f"{number}.wav|a|EN|x\n" for number in range(50))})
    asked = []

    def located(uri: str):
        asked.append(uri)
        raise ConnectionError("no answer")

    monkeypatch.setattr(data.layouts.placing, "located", located)
    lines = read_transcript(str(tmp_path / "esd.list"), "s3://far").lines
    assert lines[0].uri == asked[0] == "s3://far/0.wav"
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("tree", "layout", "told"),
    [
        ({"a.txt": "x"}, "auto", r"a folder with no transcript of a known layout: set data\."),
        ({"esd.list": "1.wav|a|EN|x"}, "vctk", r"a folder with no file of the layout vctk"),
        (
            {"esd.list": "1.wav|a|EN|x\n", "metadata.csv": "1|x\n2|y\n"},
            "auto",
            r"holds esd\.list \(esd\) and metadata\.csv \(ljspeech\): set data\.layout",
        ),
    ],
)
def test_a_folder_without_one_layout_is_refused(tmp_path, tree, layout, told) -> None:
    plant(tmp_path, tree)
    with pytest.raises(ValueError, match=told):
        read_transcript(str(tmp_path), layout=layout)


def test_a_file_of_another_layout_is_refused(tmp_path) -> None:
    plant(tmp_path, {"esd.list": "1.wav|a|EN|x\n"})
    with pytest.raises(ValueError, match=r"is no file of the layout vctk \(txt/SPEAKER/\*\.txt\)"):
        read_transcript(str(tmp_path / "esd.list"), layout="vctk")
    (reject,) = read_transcript(str(tmp_path / "esd.list"), layout="jsut").rejects
    assert reject.detail == "no line of the layout jsut: id:text"


def write_parquet(path: Path, sounds: list[bytes | None], **columns: list) -> None:
    audio = [{"bytes": sound, "path": f"{n}.wav"} for n, sound in enumerate(sounds)]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"audio": pa.array(audio, kind), **columns})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=2)


@pytest.fixture
def sounds(tmp_path) -> Iterator[list[bytes]]:
    names = [tmp_path / f"sounds/{number}.wav" for number in range(3)]
    for number, name in enumerate(names):
        write_sound(name, number)
    return [name.read_bytes() for name in names]


@pytest.mark.medium
def test_recordings_inside_of_parquet_are_prepared(tmp_path, sounds, monkeypatch, capsys) -> None:
    without_ray(monkeypatch)
    texts = {"normalized_text": ["Yes.", "No.", "I see."], "lang": ["en"] * 3}
    write_parquet(tmp_path / "hf/data/train-00000-of-00001.parquet", sounds, **texts)
    cfg = DataConfig(
        transcript=str(tmp_path / "hf"),
        shards=str(tmp_path / "out"),
        bert=BertConfig(zh="random", jp="random", en="random", random_width=16),
    )
    manifest = prepare(cfg)
    assert len(manifest) == 3
    assert manifest.speakers == {"hf": 0}
    assert sorted(manifest.values("id", range(3)))[0] == "data/train-00000-of-00001.parquet/0"
    assert check_prepared(cfg, manifest) == []
    assert prepare(cfg).digest == manifest.digest


def test_rows_of_parquet_with_names_of_files_or_nothing(tmp_path, sounds) -> None:
    write_parquet(tmp_path / "train.parquet", [None] * 3, text=["a", "b", "c"])
    first = read_transcript(str(tmp_path / "train.parquet"), language="EN").lines[0]
    assert first.uri == str(tmp_path / "0.wav")
    write_parquet(tmp_path / "test.parquet", [*sounds[:2], None], text=["a", "b", "c"])
    lines = read_transcript(str(tmp_path / "test.parquet"), language="EN").lines
    assert [read_audio(line.uri) for line in lines[:2]] == sounds[:2]
    with pytest.raises(ValueError, match=r"row 3 of .*test\.parquet holds no recording"):
        read_audio(lines[2].uri)


def test_a_command_names_the_key(tmp_path, capsys) -> None:
    plant(tmp_path, TREES["vits"])
    with pytest.raises(ValueError, match=r"set data\.language"):
        main([f"--data.transcript={tmp_path}"])


def test_json_of_other_columns(tmp_path) -> None:
    rows = [{"audio_filepath": "1.wav", "text": "Yes.", "speaker": 5, "language": "en"}]
    plant(tmp_path, {"metadata.jsonl": "".join(f"{json.dumps(row)}\n" for row in rows)})
    (line,) = read_transcript(str(tmp_path)).lines
    assert (line.id, line.speaker, line.language, line.text) == ("1.wav", "5", "EN", "Yes.")

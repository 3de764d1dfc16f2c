"""Preparation end to end: three languages, real Ray, bad inputs, second runs, object stores."""

import json
import re
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pytest
import ray
import soundfile

import data.corpus.prepare
from data.audio.recording import decode_flac
from data.config import BertConfig, DataConfig
from data.corpus.ledger import TooManyRejectsError
from data.corpus.on_ray import blocks
from data.corpus.prepare import prepare
from data.corpus.splits import split_of
from data.corpus.survey import judge
from data.corpus.tables.records import SURVEYED
from data.corpus.tables.shard_rows import HeldRows
from data.corpus.tables.surveyed import Surveyed
from data.corpus.transcript import read_transcript
from data.files import PART_SUFFIX
from data.shards.manifest import ManifestError, number_speakers, read_manifest
from data.shards.shard import ShardReader, list_shards, read_index
from tools.s3_server import s3_server

GPUS = 1  # of Ray, which torch does not see
RATE = 44100
TEXTS = [
    ("anna", "EN", "Good morning, everybody."),
    ("anna", "EN", "It costs 25 dollars."),
    ("ben", "EN", "Well | done, he's here."),
    ("hana", "JP", "おはようございます。"),
    ("hana", "JP", "駅はどこですか？"),
    ("mei", "ZH", "早上好，今天下雨。"),
    ("mei", "ZH", "一共二十五块。"),
    ("mei", "ZH", "请问，怎么走？"),
]


class Holder:
    """A process of another job."""

    def holds(self) -> bool:
        return True


def write_wav(path: Path, seconds: float, pitch: float) -> None:
    times = np.arange(int(seconds * RATE)) / RATE
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.5 * np.sin(2 * np.pi * pitch * times), RATE, subtype="PCM_16")


def write_corpus(folder: Path, count: int = len(TEXTS)) -> list[str]:
    lines = []
    for number, (speaker, language, text) in enumerate(TEXTS[:count]):
        write_wav(folder / f"wavs/{number}.wav", 2.0 - 0.15 * number, 200 + 20 * number)
        lines.append(f"wavs/{number}.wav|{speaker}|{language}|{text}")
    (folder / "esd.list").write_text("\n".join(lines), encoding="utf-8")
    return lines


def config(folder: Path, **changes) -> DataConfig:
    bert = BertConfig(zh="random", jp="random", en="random", random_width=16)
    settings = {
        "rows_per_shard": 3,
        "bert": bert,
        "transcript": str(folder / "esd.list"),
        "shards": str(folder / "out"),
    }
    return DataConfig(**{**settings, **changes})


@pytest.fixture(scope="module", autouse=True)
def s3_bucket(ray_shared):
    """An S3 with the bucket `corpus`; started before Ray, whose workers inherit the environment."""
    ray_shared.end()
    with s3_server("corpus"):
        yield fsspec.filesystem("s3", skip_instance_cache=True)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory, ray_local):
    """A prepared corpus that the tests read and do not change; its BERT actors hold a GPU."""
    folder = tmp_path_factory.mktemp("corpus")
    write_corpus(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "gpu_trouble", lambda: "")
        assert blocks.model_resources("BERT")[1] == 1
        return folder, prepare(config(folder))


def test_rows_hold_what_training_needs(corpus) -> None:
    folder, manifest = corpus
    assert manifest.table.num_rows == len(TEXTS)
    assert list(manifest.column("frames")) == sorted(manifest.column("frames"))
    reader = ShardReader(manifest.uri)
    for entry in manifest.table.to_pylist():
        row = reader.row(entry["shard"], entry["row"])
        speaker, language, text = TEXTS[int(Path(entry["id"]).stem)]
        assert (row["key"], row["id"]) == (entry["key"], entry["id"])
        assert (row["speaker"], row["language"], row["text"]) == (speaker, language, text)

        pcm, _ = soundfile.read(folder / entry["id"], dtype="float32")
        assert np.array_equal(decode_flac(row["audio"]), pcm)
        assert entry["samples"] == row["samples"] == len(pcm)
        assert entry["frames"] == row["frames"] == len(pcm) // 512
        assert len(row["phones"]) == len(row["tones"]) == sum(row["word2ph"]) == entry["phones"]
        shape = (len(row["word2ph"]), row["bert_width"])
        features = np.frombuffer(row["bert"], np.float16).reshape(shape)
        assert row["bert_width"] == 16
        assert np.isfinite(features).all()
        assert features.std() > 0
    by_ranges = reader.rows(manifest.located(range(len(TEXTS))))
    assert [row["key"] for row in by_ranges] == manifest.column("key").tolist()
    assert manifest.has_ranges
    for shard in list_shards(manifest.uri):
        for entry in read_index(manifest.uri, shard):
            assert entry["quality"]["level"] == pytest.approx(20 * np.log10(0.5 / 2**0.5), abs=0.1)


def test_shards_are_sorted_by_length_and_bounded(corpus) -> None:
    _, manifest = corpus
    assert len(set(manifest.column("shard"))) == 3
    places = manifest.table.select(["shard", "row"]).to_pylist()
    assert [place["row"] for place in places] == [0, 1, 2, 0, 1, 2, 0, 1]


def test_header_and_split(corpus) -> None:
    _, manifest = corpus
    header = manifest.header
    assert manifest.speakers == {"anna": 0, "ben": 1, "hana": 2, "mei": 3}
    assert header["languages"] == ["EN", "JP", "ZH"]
    assert header["counts"] == {"lines": 8, "kept": 8, "rejected": {}}
    assert (header["sampling_rate"], header["hop_length"], header["bert_width"]) == (44100, 512, 16)
    assert set(header["front_ends"]) == set(header["berts"]) == {"ZH", "JP", "EN"}
    held_back = manifest.column("speaker")[manifest.column("split") == "validation"]
    assert sorted(held_back) == ["anna", "hana", "mei"]
    assert read_manifest(manifest.uri).digest == manifest.digest


@pytest.fixture(scope="module")
def changed(corpus, tmp_path_factory):
    """A copy of `corpus`, prepared again after changes.

    A line's speaker, a line's text and a line's recording differ; a line is gone, and one is new.
    """
    folder = tmp_path_factory.mktemp("changed")
    shutil.copytree(corpus[0], folder, dirs_exist_ok=True)
    lines = (folder / "esd.list").read_text(encoding="utf-8").split("\n")
    write_wav(folder / "wavs/new.wav", 1.0, 300)
    write_wav(folder / "wavs/3.wav", 1.5, 999)
    lines = [lines[0].replace("anna", "aaron"), *lines[2:], "wavs/new.wav|anna|EN|Hello there."]
    (folder / "esd.list").write_text("\n".join(lines).replace("下雨", "下雪"), encoding="utf-8")
    out = folder / "out"
    before = {shard: (out / shard).stat().st_mtime_ns for shard in list_shards(str(out))}
    with pytest.MonkeyPatch.context() as patch:
        computed = computed_ids(patch)
        manifest = prepare(config(folder))
    return folder, manifest, before, computed


def computed_ids(patch: pytest.MonkeyPatch) -> list[list[str]]:
    """Watch which utterances each preparation computes."""
    seen: list[list[str]] = []
    compute = data.corpus.prepare._compute

    def watch(cfg, recipe, rows, held):
        seen.append(sorted(rows.columns(rows.new, ["id"]).column("id").to_pylist()))
        return compute(cfg, recipe, rows, held)

    patch.setattr(data.corpus.prepare, "_compute", watch)
    return seen


def test_preparing_again_computes_what_changed(corpus, changed) -> None:
    _, manifest, _, computed = changed
    assert computed == [[f"wavs/{name}.wav" for name in ("0", "3", "5", "new")]]
    assert manifest.digest != corpus[1].digest
    assert manifest.speakers == {**corpus[1].speakers, "aaron": 4}
    assert manifest.header["counts"] == {"lines": 8, "kept": 8, "rejected": {}}
    assert "wavs/1.wav" not in manifest.column("id")
    reader = ShardReader(manifest.uri)
    for entry in manifest.table.to_pylist():
        row = reader.row(entry["shard"], entry["row"])
        for name in ("id", "key", "speaker"):
            assert row[name] == entry[name]


def test_shards_are_immutable_and_removed_when_nothing_names_them(changed) -> None:
    folder, manifest, before, _ = changed
    shards = set(manifest.column("shard"))
    assert set(list_shards(manifest.uri)) == shards
    assert shards & set(before)
    assert all((folder / "out" / s).stat().st_mtime_ns == before[s] for s in shards & set(before))


def test_an_interrupted_run_resumes_where_it_was(corpus, tmp_path, monkeypatch) -> None:
    """It was interrupted in a shard, before its manifest; and a recording changes meanwhile."""
    folder, manifest = corpus
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    cfg = config(tmp_path)
    (tmp_path / "out/manifest.json").unlink()
    cut_off = list_shards(cfg.shards)[0]
    (tmp_path / "out" / cut_off).rename(tmp_path / "out" / f"{cut_off}.0{PART_SUFFIX}")
    with pytest.raises(ManifestError):
        read_manifest(cfg.shards)

    computed = computed_ids(monkeypatch)
    missing = sorted(manifest.column("id")[manifest.column("shard") == cut_off])
    recording = (tmp_path / missing[0]).read_bytes()
    judge = data.corpus.prepare.judge

    def change(*args):
        (tmp_path / missing[0]).write_bytes(recording + b"more")
        return judge(*args)

    with monkeypatch.context() as patch:
        patch.setattr(data.corpus.prepare, "judge", change)
        with pytest.raises(ValueError, match=f"{missing[0]} changed while it was prepared"):
            prepare(cfg)

    (tmp_path / missing[0]).write_bytes(recording)
    assert prepare(cfg).digest == manifest.digest
    report = (tmp_path / "out/report.html").read_text("utf-8").replace(str(tmp_path), str(folder))
    # rows that were held are counted as new ones are
    assert report == (folder / "out/report.html").read_text("utf-8")
    # of a shard with a recording that changed, nothing is written
    assert computed == [missing, missing]
    assert not list((tmp_path / "out/shards").glob(f"*{PART_SUFFIX}"))


BAD = [
    ("wavs/none.wav|anna|EN|There is no file.", "missing_audio"),
    ("wavs/text.wav|anna|EN|This is no audio.", "unreadable_audio"),
    ("wavs/silent.wav|anna|EN|Nothing is heard.", "silent"),
    ("wavs/short.wav|anna|EN|Too short.", "too_short"),
    ("wavs/long.wav|anna|EN|Too long.", "too_long"),
    ("wavs/fast.wav|anna|EN|" + "Much more text than could be said in it. " * 3, "too_many_phones"),
    ("wavs/0.wav|anna|EN|The same recording again.", "duplicate_id"),
    ("wavs/9.wav|anna|FR|Bonjour.", "unknown_language"),
    ("wavs/10.wav|anna|EN|", "empty_text"),
    ("wavs/unsaid.wav|hana|JP|%%", "empty_text"),
    ("wavs/11.wav|anna", "malformed_line"),
]


def write_bad_inputs(folder: Path) -> None:
    lines = write_corpus(folder, 5)
    (folder / "wavs/text.wav").write_text("no audio")
    soundfile.write(folder / "wavs/silent.wav", np.zeros(RATE), RATE)
    write_wav(folder / "wavs/short.wav", 0.2, 440)
    write_wav(folder / "wavs/long.wav", 20.5, 440)
    write_wav(folder / "wavs/fast.wav", 0.5, 440)
    write_wav(folder / "wavs/unsaid.wav", 1.0, 440)
    lines += [line for line, _ in BAD]
    not_utf_8 = b"\n\nwavs/7.wav|mei|ZH|\xff\xfe"
    (folder / "esd.list").write_bytes("\n\n".join(lines).encode() + not_utf_8)


def test_bad_inputs_end_in_the_ledger(tmp_path, ray_local, capsys) -> None:
    write_bad_inputs(tmp_path)
    cfg = config(tmp_path, max_reject_share=0.8)
    manifest = prepare(cfg)
    assert manifest.header["counts"]["kept"] == 5
    told = capsys.readouterr().out
    assert "17 lines, 5 kept" in told
    # a tone is all that was measured in Ray's actors
    assert re.search(r"  quality  narrow_band +5 lines \(quality\.jsonl, report", told)
    # Ray has a GPU here
    assert "warning: BERT runs on the CPU. Ray has GPUs, but torch sees none" in told

    content = (tmp_path / "out/rejects.jsonl").read_text("utf-8")
    saved = [json.loads(line) for line in content.splitlines()]
    assert [reject["reason"] for reject in saved] == [reason for _, reason in BAD] + [
        "malformed_line"
    ]
    # after five good lines; every second line is blank
    assert [reject["line"] for reject in saved] == list(range(11, 11 + 2 * len(saved), 2))
    assert [reject["text"] for reject in saved[:-1]] == [line for line, _ in BAD]


def test_what_other_jobs_hold_is_told_where_it_is_waited_for(
    ray_local, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(blocks, "ROOM_WITHIN_S", 0.2)
    write_corpus(tmp_path, 2)
    cpus = ray.cluster_resources()["CPU"]
    other_jobs = {
        "waits for a CPU": ray.remote(Holder).options(num_cpus=cpus).remote(),
        "waits for a GPU": ray.remote(Holder).options(num_gpus=1, num_cpus=0).remote(),
    }
    ray.get([job.holds.remote() for job in other_jobs.values()])
    deadline = time.monotonic() + 100
    while any(ray.available_resources().get(name, 0) >= 0.5 for name in ("CPU", "GPU")):
        assert time.monotonic() < deadline
        time.sleep(0.05)  # told with a delay
    told = ""
    with ThreadPoolExecutor(1) as thread:
        prepared = thread.submit(prepare, config(tmp_path))
        try:
            for line, job in other_jobs.items():
                while line not in told:
                    assert not prepared.done() and time.monotonic() < deadline, told
                    told += capsys.readouterr().out
                    time.sleep(0.05)
                ray.kill(job)
        finally:  # the thread waits for them
            for job in other_jobs.values():
                ray.kill(job)
        assert prepared.result().table.num_rows == 2
    told += capsys.readouterr().out
    assert (
        told.count("waits for a GPU: other jobs hold those of this cluster, 1 (`ray status`") == 1
    )
    assert told.count("waits for") == 2


def test_a_refused_run_leaves_the_shards_alone(corpus, tmp_path) -> None:
    (tmp_path / "esd.list").write_text("a.wav|anna|EN\nb.wav|anna|FR|Bonjour.", encoding="utf-8")
    shutil.copytree(corpus[0] / "out", tmp_path / "out")
    with pytest.raises(TooManyRejectsError, match=r"2 of 2 lines .*data\.max_reject_share"):
        prepare(config(tmp_path))
    assert read_manifest(str(tmp_path / "out")).digest == corpus[1].digest
    assert len((tmp_path / "out/rejects.jsonl").read_text("utf-8").splitlines()) == 2


def test_limits_hold_for_rows_that_a_shard_holds(tmp_path) -> None:
    (tmp_path / "esd.list").write_text(
        "a.wav|anna|EN|One.\nb.wav|anna|EN|Two.\nc.wav|anna|EN|Three."
    )
    transcript = read_transcript(str(tmp_path / "esd.list"))
    lengths = {"a": (RATE, 5), "b": (RATE // 2, 5), "c": (RATE, 43)}
    index = [
        {"key": key, "samples": samples, "phones": " ".join(["ah"] * phones)}
        for key, (samples, phones) in lengths.items()
    ]
    held = HeldRows([("s", index)])
    surveyed = Surveyed(transcript.lines)
    found = [{"line": n, "key": key, "audio": key} for n, key in enumerate(lengths)]
    surveyed.add(pa.Table.from_pylist(found, SURVEYED))
    surveyed.flush()
    cfg = DataConfig(min_seconds=0.8)
    ledger, rows = judge(cfg, transcript, surveyed, held)
    assert [transcript.lines[int(line)].id for line in rows.line] == ["a.wav"]
    rejected = {"too_many_phones": 1, "too_short": 1}
    assert ledger.counts() == {"lines": 3, "kept": 1, "rejected": rejected}
    # 43 phones are 87 entries with blanks, one more than the frames of a second
    assert len(judge(replace(cfg, add_blank=False), transcript, surveyed, held)[1]) == 2


def test_object_store(changed, s3_bucket) -> None:
    """A fresh preparation from a glob, with other shards, has the digest of the updated corpus."""
    folder, manifest, _, _ = changed
    for path in (folder / "esd.list", *sorted((folder / "wavs").iterdir())):
        s3_bucket.put_file(str(path), f"corpus/{path.relative_to(folder)}")
    remote = config(
        folder, transcript="s3://corpus/*.list", shards="s3://corpus/out/", rows_per_shard=5
    )
    assert prepare(remote).digest == prepare(remote).digest == manifest.digest
    entry = read_manifest("s3://corpus/out").table.to_pylist()[-1]
    row = ShardReader("s3://corpus/out").row(entry["shard"], entry["row"])
    assert row["id"] == entry["id"] == "wavs/0.wav"
    assert len(decode_flac(row["audio"])) == entry["samples"]


def test_split_is_stable_and_keeps_one_for_training() -> None:
    counts = {"a": 200, "b": 2, "c": 1}
    speakers = {f"{name}/{n}": name for name, count in counts.items() for n in range(count)}
    splits = split_of(speakers, 1, 0.1)

    def held_back(speaker: str) -> int:
        return sum(splits[u] == "validation" for u in speakers if speakers[u] == speaker)

    assert 10 <= held_back("a") <= 30
    assert (held_back("b"), held_back("c")) == (1, 0)
    grown = split_of({**speakers, **{f"a/{n}": "a" for n in range(200, 300)}}, 1, 0.1)
    assert all(grown[utterance] == split for utterance, split in splits.items())
    assert set(split_of(speakers, 0, 0.0).values()) == {"train"}
    other = split_of(speakers, 1, 0.1, seed=1)
    assert any(other[utterance] != split for utterance, split in splits.items())


def test_splits_that_the_transcript_names_are_taken() -> None:
    speakers = {f"a/{n}": "a" for n in range(5)} | {"b/0": "b", "c/0": "c", "c/1": "c"}
    given = {"a/0": "validation", "a/1": "validation", "b/0": "validation", "c/0": "train"}
    splits = split_of(speakers, 2, 0.0, given=given)
    assert {utterance: splits[utterance] for utterance in given} == given
    assert [splits[f"a/{n}"] for n in (2, 3, 4)] == ["train"] * 3  # two are held back already
    assert splits["c/1"] == "validation"  # c/0 is left for training


def test_speakers_keep_their_numbers() -> None:
    assert number_speakers(["b", "a"], {}) == {"a": 0, "b": 1}
    assert number_speakers(["c", "a0"], {"b": 0, "a": 1}) == {"b": 0, "a": 1, "a0": 2, "c": 3}
    # behind the highest number, whatever gaps there are
    assert number_speakers(["d", "c"], {"b": 7, "a": 2}) == {"b": 7, "a": 2, "c": 8, "d": 9}

"""job.prepare measures recordings, tells what is wrong, and rejects what it is told to."""

import contextlib
import json
import re
import shutil
from typing import get_args

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
import soxr

import job.prepare
from data.config import DataConfig
from data.corpus.prepared import changes, check_prepared
from data.quality.gate import COPY, KINDS
from data.quality.measures import MEASURES
from data.rejected import Reason
from data.settings.quality import QualityConfig, Rejected
from data.shards.manifest import read_manifest
from data.shards.shard import list_shards, read_index
from tests.data.corpus.without_ray import without_ray
from tests.data.quality.test_measures import RATE, in_16_bits, noise, speech
from tests.job.conftest import DEMO, overrides

pytestmark = pytest.mark.medium

GOOD = [f"en_f1/00{number}" for number in range(7)]
TEXT = "Good morning, everybody, and welcome."  # at the pace of the recordings, more or less
# name -> kind, and the speaker where it is not Amy
SPOILED = {
    "clipped": "clipped",
    "upsampled": "narrow_band",
    "white": "noisy",
    "noisy": "noisy",
    "paused": "mostly_silence",
    "quiet": "quiet",
    "fast": "speech_rate",
    "copy": "near_duplicate",
}


def spoiled(name: str) -> np.ndarray:
    wav = speech("jp_f1/003")
    return {
        "clipped": lambda: in_16_bits(20 * wav),
        "upsampled": lambda: soxr.resample(soxr.resample(wav[9000:], RATE, 8000), 8000, RATE),
        "white": lambda: 0.1 * noise(2 * RATE),
        "noisy": lambda: wav[4000:] + 0.05 * noise(len(wav) - 4000),
        "paused": lambda: np.concatenate([wav[:30000], np.zeros(4 * RATE), wav[30000:60000]]),
        "quiet": lambda: 0.01 * speech("jp_f1/006"),
        "fast": lambda: speech("jp_f1/001"),
        "copy": lambda: 0.5 * speech(GOOD[0]),
    }[name]()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quality")
    lines = []
    for number, name in enumerate(GOOD):
        soundfile.write(folder / f"{number}.wav", speech(name), RATE)
        lines.append(f"{number}.wav|Amy|EN|{TEXT}")
    for name in SPOILED:
        soundfile.write(folder / f"{name}.flac", spoiled(name), RATE)
        text = f"{TEXT} {TEXT} {TEXT[:24]}." if name == "fast" else TEXT
        lines.append(f"{name}.flac|{'amy' if name == 'upsampled' else 'Amy'}|EN|{text}")
    (folder / "esd.list").write_text("\n".join(lines), encoding="utf-8")
    return folder


def prepared_by(corpus, shards, **options: object) -> None:
    base = {
        "data__transcript": corpus / "esd.list",
        "data__shards": shards,
        "data__max_reject_share": 0.6,
    }
    with pytest.MonkeyPatch.context() as patch:
        without_ray(patch)
        patch.setattr(job.prepare, "ray_session", contextlib.nullcontext)
        assert job.prepare.main(["--config", str(DEMO), *overrides(**base | options)]) == 0


def lines_of(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.fixture(scope="module")
def shards(corpus):
    prepared_by(corpus, corpus / "shards")
    return corpus / "shards"


def test_each_kind_is_found_and_nothing_else(corpus, shards):
    found = {line["path"].rpartition("/")[2]: line for line in lines_of(shards / "quality.jsonl")}
    kinds = {path.removesuffix(".flac"): line["kinds"] for path, line in found.items()}
    assert kinds.keys() == SPOILED.keys()
    for name, kind in SPOILED.items():
        assert kind in kinds[name], (name, kinds[name])
    assert kinds["copy"] == ["near_duplicate"]
    assert "which has the same text" in found["copy.flac"]["details"][0]
    assert found["upsampled.flac"]["bandwidth"] < 4300
    assert found["white.flac"]["snr"] < 0
    # by default it warns
    assert read_manifest(str(shards)).header["counts"]["rejected"] == {}


def test_the_console_tells_each_kind_once_and_where_to_look(corpus, shards, capsys):
    """Of a preparation that reads nothing again, too."""
    files = ("quality.jsonl", "report.html")
    before = [(shards / name).read_bytes() for name in files]
    shutil.rmtree(shards / "survey")
    for _ in range(2):
        prepared_by(corpus, shards)
        told = capsys.readouterr().out
        assert "0 of 15 rows are computed" in told
        for kind in set(SPOILED.values()):
            (line,) = re.findall(rf"^  quality  {kind} .*", told, re.MULTILINE)
            assert re.search(
                r" [12] lines \(quality\.jsonl, report\.html\), first .*list:\d+", line
            )
        assert "warning: speakers 'Amy', 'amy' are 2 voices" in told
        assert [(shards / name).read_bytes() for name in files] == before


def test_the_report_has_players_of_the_worst_and_amounts(shards):
    page = (shards / "report.html").read_text("utf-8")
    assert page.count("data:audio/mpeg;base64,") == 15
    # by how much they are beyond the thresholds
    cards = page[page.index("The worst lines") :].split("data:audio/mpeg")[1:]
    bad = ["within all thresholds" not in card for card in cards]
    assert bad == [True] * len(SPOILED) + [False] * len(GOOD)
    assert f"{shards.parent / 'esd.list'}:" in page
    assert "too little: users of this model report some effect from 3 minutes on" in page
    assert 'href="https://github.com/YYuX-1145/Bert-VITS2-Integration-package/issues/35"' in page
    assert "EN, minutes" in page


def test_what_is_named_is_rejected(corpus, shards, tmp_path, capsys):
    reject = ["noisy", "near_duplicate"]
    options = {"data__quality__reject": json.dumps(reject), "data__quality__min_snr": 5}
    shutil.copytree(shards, tmp_path / "shards")
    prepared_by(corpus, tmp_path / "shards", **options)
    rejected = lines_of(tmp_path / "shards/rejects.jsonl")
    assert {line["text"].split("|")[0]: line["reason"] for line in rejected} == {
        "white.flac": "noisy",
        "copy.flac": "near_duplicate",
    }
    assert "min_snr asks for 5" in rejected[0]["detail"]
    told = capsys.readouterr().out
    assert "0 of 13 rows are computed" in told  # the measures are kept
    assert "data.quality.reject was nothing, is near_duplicate, noisy (min_snr 5)" in told
    manifest = read_manifest(str(tmp_path / "shards"))
    with pytest.raises(
        ValueError, match=r"data\.quality\.reject near_duplicate, noisy \(min_snr 5"
    ):
        check_prepared(DataConfig(quality=QualityConfig()), manifest)
    # thresholds of what is not rejected decide nothing
    same = QualityConfig(reject=tuple(reject), min_snr=5.0, min_level=-60.0)
    found = changes(DataConfig(quality=same), manifest.header)
    assert "quality.reject" not in [change.key for change in found]


def test_rows_of_older_code_are_not_measured_and_stay_readable(
    corpus, tmp_path, monkeypatch, capsys
):
    with monkeypatch.context() as patch:
        patch.setattr("data.corpus.writer.stored", lambda row: {})
        prepared_by(corpus, tmp_path / "shards")
    uri = str(tmp_path / "shards")
    for shard in list_shards(uri):
        assert not any("quality" in row for row in read_index(uri, shard))
    for part in (tmp_path / "shards/survey").iterdir():
        table = pq.read_table(part)
        pq.write_table(table.drop_columns(MEASURES.names), part)
    capsys.readouterr()
    prepared_by(corpus, tmp_path / "shards")
    told = capsys.readouterr().out
    assert "0 of 15 rows are computed" in told
    assert "damaged" not in told
    assert re.search(r"  quality  not measured +15 lines, in shards of older code", told)
    assert (tmp_path / "shards/quality.jsonl").read_bytes() == b""
    page = (tmp_path / "shards/report.html").read_text("utf-8")
    assert "not measured" in page
    assert "data:audio/mpeg" not in page


def test_what_can_be_rejected_is_what_is_measured():
    kinds = {kind.name for kind in KINDS} | {COPY}
    assert set(get_args(Rejected)) == kinds == set(SPOILED.values())
    assert kinds <= {reason.value for reason in Reason}

"""Lines that kill the process that decodes or reads them, on a real Ray: found, and rejected."""

import importlib.metadata
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from data.config import BertConfig, DataConfig
from data.corpus.on_ray.blocks import PreparationError
from data.corpus.prepare import prepare
from tests.conftest import start_ray
from tests.data.corpus.poison import SECONDS_THAT_CRASH, SECONDS_THAT_HANG
from tests.data.corpus.without_ray import write_sound

pytestmark = pytest.mark.timeout(600)  # Ray starts what has died again, and takes its time

LIMIT_S = 4.0
MOST_LOST_S = 60.0
ROOT = Path(__file__).parents[3]
TEXTS = [
    "Good morning.",
    "Memory, please.",
    "I see.",
    "For ever and ever.",
    "A crash of its recording.",
    "Well done.",
]


@pytest.fixture(scope="module")
def ray_whose_lines_kill() -> Iterator[None]:
    folder, _ = start_ray(
        runtime_env={
            "env_vars": {"PYTHONPATH": str(ROOT)},
            "worker_process_setup_hook": "tests.data.corpus.poison.poison",
        }
    )
    yield
    ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


def config(folder: Path, **changes) -> DataConfig:
    return DataConfig(
        transcript=str(folder / "esd.list"),
        shards=str(folder / "out"),
        bert=BertConfig(zh="random", jp="random", en="random", random_width=16),
        line_timeout_s=LIMIT_S,
        max_reject_share=0.5,
        **changes,
    )


def write_corpus(folder: Path, texts: list[str], language: str = "EN") -> None:
    lines = []
    for number, text in enumerate(texts):
        seconds = SECONDS_THAT_CRASH if "crash" in text else 1.5
        seconds = SECONDS_THAT_HANG if "Hang" in text else seconds
        write_sound(folder / f"{number}.wav", number, seconds)
        lines.append(f"{number}.wav|anna|{language}|{text}\n")
    (folder / "esd.list").write_text("".join(lines), encoding="utf-8")


def rejects(folder: Path) -> dict[int, str]:
    """Return line -> reason."""
    lines = (folder / "out/rejects.jsonl").read_text(encoding="utf-8").splitlines()
    return {row["line"]: row["reason"] for row in map(json.loads, lines)}


@pytest.mark.cluster
@pytest.mark.usefixtures("ray_whose_lines_kill")
def test_lines_that_kill_their_process_are_rejected_by_name(tmp_path: Path) -> None:
    write_corpus(tmp_path, TEXTS)
    began = time.monotonic()
    manifest = prepare(config(tmp_path))
    assert time.monotonic() - began < 3 * MOST_LOST_S
    assert rejects(tmp_path) == {2: "crashed", 4: "timed_out", 5: "crashed"}
    assert sorted(manifest.values("id", range(3))) == ["0.wav", "2.wav", "5.wav"]
    report = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    assert "4 s (data.line_timeout_s)" in report


@pytest.mark.cluster
@pytest.mark.usefixtures("ray_whose_lines_kill")
def test_lines_that_kill_the_second_pass_are_rejected_too(tmp_path: Path, capfd) -> None:
    # the fifth has the recording of the first, which it may have once that is rejected
    texts = ["BERT dies of it.", "I see.", "Hang on, it takes for ever.", "Well done.", "Good."]
    write_corpus(tmp_path, texts)
    shutil.copy(tmp_path / "0.wav", tmp_path / "4.wav")
    manifest = prepare(config(tmp_path, rows_per_shard=3))
    assert rejects(tmp_path) == {1: "crashed", 3: "timed_out"}
    assert sorted(manifest.values("id", range(3))) == ["1.wav", "3.wav", "4.wav"]
    assert manifest.header["counts"]["rejected"] == {"crashed": 1, "timed_out": 1}
    assert manifest.header["counts"]["kept"] == 3
    assert "2 lines end the process that computes them" in capfd.readouterr().out


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.usefixtures("ray_whose_lines_kill")
def test_a_process_that_dies_of_other_reasons_is_not_started_for_ever(tmp_path: Path) -> None:
    write_corpus(tmp_path, ["Whoever leads this dies.", "Good morning."])
    with pytest.raises(PreparationError, match=r"^a process of the preparation died 4 times \("):
        prepare(config(tmp_path))


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.usefixtures("ray_whose_lines_kill")
def test_open_jtalk_dies_of_a_very_long_word_of_kana(tmp_path: Path) -> None:
    try:
        version = importlib.metadata.version("pyopenjtalk")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("pyopenjtalk, the engine `strict`, is not installed")
    write_corpus(tmp_path, ["おはようございます。", "ア" * 400, "はい。"], "JP")
    prepare(config(tmp_path, japanese_engine="strict"))
    assert rejects(tmp_path) == {2: "crashed"}, version

"""Lines with findings, of which there may be as many as a corpus has."""

import json
import tracemalloc
from pathlib import Path

from data.quality.book import Book, Flagged
from data.quality.gate import Finding

NOISY = Finding("noisy", "speech to steady noise is 3.0 dB")
CLIPPED = Finding("clipped", "4.00% of its samples are clipped")


def flagged(number: int, *findings: Finding, source: str = "b.list", **other: str) -> Flagged:
    text = other.get("text", "Yes.")
    rejected = CLIPPED in findings
    return Flagged(source, number, "a.wav", "anna", text, findings, rejected, {"snr": 3.0})


def test_they_are_counted_and_saved_in_the_order_of_the_transcripts(tmp_path: Path) -> None:
    book = Book()
    for number in (2, 10, 11):
        book.flag(flagged(number, NOISY))
    book.flag(flagged(7, NOISY, CLIPPED, source="a.list", text="\ud800 é"))
    rows = book.rows()
    assert [row.split()[1:3] for row in rows] == [["noisy", "4"], ["clipped", "1"]]
    assert "1 of them rejected" in rows[0]
    assert all("first a.list:7: " in row for row in rows)
    assert book.of_speakers == {"anna": {"noisy": 4, "clipped": 1}}
    book.save(f"{tmp_path}/quality.jsonl")
    saved = (tmp_path / "quality.jsonl").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in saved.splitlines()]
    assert [(line["file"], line["line"]) for line in lines] == [
        ("a.list", 7),
        ("b.list", 2),
        ("b.list", 10),
        ("b.list", 11),
    ]
    assert lines[0]["kinds"] == ["noisy", "clipped"]
    assert lines[0]["rejected"]
    assert "é" in saved
    Book().save(f"{tmp_path}/none.jsonl")
    assert (tmp_path / "none.jsonl").read_bytes() == b""


def test_a_line_with_findings_takes_a_few_bytes(tmp_path: Path) -> None:
    book = Book()
    book.flag(flagged(0, NOISY))
    tracemalloc.start()
    try:
        for number in range(1, 2001):
            book.flag(flagged(number, NOISY))
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        book.save(f"{tmp_path}/quality.jsonl")
        peak = tracemalloc.get_traced_memory()[1] - held
    finally:
        tracemalloc.stop()
    assert held / 2000 < 60
    assert peak / 2000 < 200

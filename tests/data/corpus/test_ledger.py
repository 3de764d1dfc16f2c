"""The ledger: the balance, what is printed and saved, and when a run is refused."""

import json
import pickle
import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.corpus.ledger import Ledger, Reject, TooManyRejectsError
from data.corpus.report import report_page, save_report
from data.rejected import Reason, RejectedError
from data.text.front_end import REASONS


def ledger(kept: int, rejected: list[Reason]) -> Ledger:
    book = Ledger("corpus/esd.list", kept + len(rejected))
    for _ in range(kept):
        book.keep("anna", "EN", 36.0)
    book.reject(
        Reject("corpus/esd.list", n, reason, f"detail {n}", f"line {n}", "bo", "ZH")
        for n, reason in enumerate(rejected, start=7)
    )
    return book


def test_counts_and_table() -> None:
    book = ledger(100, [Reason.SILENT, Reason.MISSING_AUDIO, Reason.SILENT])
    assert book.counts() == {
        "lines": 103,
        "kept": 100,
        "rejected": {"missing_audio": 1, "silent": 2},
    }
    assert book.hours == pytest.approx(1.0)
    table = book.table()
    assert "103 lines, 100 kept (1.00 h), 3 rejected" in table
    assert table.index("silent") < table.index("missing_audio")
    assert re.search(r"language +EN +100 kept +1\.000 h +0 rejected", table)
    assert re.search(r"language +ZH +0 kept +0\.000 h +3 rejected", table)
    assert re.search(r"speaker +anna +100 kept", table)
    assert re.search(r"speaker +bo +0 kept +0\.000 h +3 rejected", table)


def test_rejects_are_saved_with_line_and_number(tmp_path) -> None:
    ledger(1, [Reason.SILENT, Reason.TOO_LONG]).save(str(tmp_path / "new" / "rejects.jsonl"))
    lines = [
        json.loads(line) for line in (tmp_path / "new" / "rejects.jsonl").read_text().splitlines()
    ]
    assert lines[0] == {
        "file": "corpus/esd.list",
        "line": 7,
        "reason": "silent",
        "detail": "detail 7",
        "speaker": "bo",
        "language": "ZH",
        "text": "line 7",
    }
    assert lines[1]["reason"] == "too_long"


def test_refusal_names_share_key_and_an_example_a_reason() -> None:
    with pytest.raises(TooManyRejectsError) as caught:
        ledger(7, [Reason.SILENT, Reason.TOO_LONG, Reason.SILENT]).check(0.2, "s3://b/out/")
    message = str(caught.value)
    assert "data.max_reject_share" in message
    assert "30.0%" in message
    assert "s3://b/out/rejects.jsonl and report.html beside it list them" in message
    assert "2 x silent, first at corpus/esd.list:7" in message
    assert "1 x too_long, first at corpus/esd.list:8" in message


def test_nothing_kept_and_nothing_read_are_refused() -> None:
    with pytest.raises(TooManyRejectsError, match="at least one line"):
        ledger(0, [Reason.SILENT]).check(1.0, "out")
    with pytest.raises(TooManyRejectsError, match=r"data\.transcript"):
        ledger(0, []).check(1.0, "out")


def test_an_unbalanced_ledger_is_an_error_of_ours() -> None:
    book = ledger(3, [])
    book.lines = 4
    with pytest.raises(AssertionError):
        book.check(1.0, "out")


@given(st.integers(0, 50), st.lists(st.sampled_from(list(Reason)), max_size=50), st.floats(0, 1))
def test_share_decides(kept: int, rejected: list[Reason], allowed: float) -> None:
    book = ledger(kept, rejected)
    assert sum(book.reasons().values()) + len(book.kept) == book.lines
    if kept and len(rejected) / book.lines <= allowed:
        book.check(allowed, "out")
    else:
        with pytest.raises(TooManyRejectsError):
            book.check(allowed, "out")


def test_front_ends_reasons_are_the_ledgers() -> None:
    assert set(REASONS) <= set(Reason)


def test_rejected_error_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(RejectedError(Reason.SILENT, "never loud")))
    assert (error.reason, str(error)) == (Reason.SILENT, "never loud")


def test_the_report_shows_what_was_kept_and_what_was_not(tmp_path) -> None:
    book = ledger(3, [Reason.SILENT])
    book.reject(
        [Reject("corpus/esd.list", 99, Reason.MALFORMED_LINE, "<1 field>", "<b>no line</b> \ud800")]
    )
    book.lines += 1
    save_report(str(tmp_path / "report.html"), book, {"EN": Counter({"ah": 5, "n": 2})})
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    for shown in (
        "<dt>lines</dt>\n<dd>5</dd>",
        '<dt>kept</dt>\n<dd>3</dd><dd class="note">0.03 h</dd>',
        "<dt>rejected</dt>\n<dd>2</dd>",
        "anna",
        "36.00 s to 36.00 s",
        "<h3>EN</h3>",
        "corpus/esd.list:99",
    ):
        assert shown in page
    assert re.search(
        r'<td>ah</td><td class="number">5</td>'
        r'<td><div class="bar"><div style="width:100.0%"></div></div></td>',
        page,
    )
    assert re.search(r"no kept line holds: [^<]*\bzh\b", page)
    assert "<b>no" not in page
    assert "&lt;b&gt;no line&lt;/b&gt; \\ud800" in page


def test_an_empty_report_is_a_page() -> None:
    shown = report_page(Ledger("lists/esd.list", 0), {})
    assert shown.startswith("<!doctype html>")
    assert "<h1>esd.list</h1>" in shown
    assert "<h2>" not in shown

"""HTML pages: text stays text, numbers are aligned and formatted, media lie in the page itself."""

import base64
import hashlib
import re

import numpy as np

from data.html_page import (
    Html,
    Tile,
    bars,
    element,
    histogram,
    link,
    marked,
    page,
    picture,
    section,
    sound,
    table,
    text,
    tiles,
)


def test_text_is_escaped_and_markup_is_not() -> None:
    assert text('<b> & "c"') == "&lt;b&gt; &amp; &#34;c&#34;"
    assert text(Html("<b>")) == "<b>"
    assert element("h2", "a < b", element("i", "c")) == "<h2>a &lt; b<i>c</i></h2>"
    assert element("p", id='"', class_="x", data_words="{}") == (
        '<p id="&#34;" class="x" data-words="{}"></p>'
    )
    assert "<b>" not in section("<b>", "<b>", note="<b>", id="<b>")
    assert "<b>" not in tiles([Tile("<b>", "<b>", "<b>", "<b>", "<b>")])
    assert "<b>" not in bars(("<b>", "<b>"), [("<b>", 1)])


def test_a_page_has_its_title_twice_and_fetches_nothing() -> None:
    shown = page("a & b", [element("p", "c"), "<d>"], kind="Kind", lead="<lead>")
    assert shown.startswith("<!doctype html>")
    assert "<title>a &amp; b · Kind</title>" in shown
    assert "<h1>a &amp; b</h1>" in shown
    assert "<p>c</p>\n&lt;d&gt;\n</main>" in shown
    assert "&lt;lead&gt;" in shown
    assert "http:" not in shown
    assert "https:" not in shown
    assert len(shown) < 100_000


def test_a_page_runs_its_own_script_alone() -> None:
    shown = page("a", ["<script>alert()</script>"])
    (script,) = re.findall(r"<script>(.*?)</script>", shown, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = re.findall(r'Content-Security-Policy" content="(.*?)"', shown)
    assert f"script-src &#39;sha256-{digest}&#39;;" in policy
    assert "default-src &#39;none&#39;" in policy


def test_columns_of_numbers_are_aligned_and_formatted() -> None:
    rows = [("<a>", np.int64(3), 0.123456), ("b", 4, None), ("c", 5, marked("7", "worse"))]
    shown = table(("id", "n", "mel"), rows, ".2f", "-")
    assert '<th>id</th><th class="number">n</th><th class="number">mel</th>' in shown
    assert '<td>&lt;a&gt;</td><td class="number">3</td><td class="number">0.12</td>' in shown
    assert '<td>b</td><td class="number">4</td><td class="number">-</td>' in shown
    assert '<td class="number"><span class="worse">7 ▼</span></td>' in shown


def test_tables_may_lack_a_header_or_rows() -> None:
    assert "<td>" not in table((), [])
    assert "<thead>" not in table((), [])
    assert "<th>a</th>" in table(("a",), [])
    shown = table((), [(True,), (np.float32(2),)])
    assert "<td>True</td>" in shown
    assert "<td>2</td>" in shown


def test_there_is_no_heading_without_content() -> None:
    assert not section("Languages", "", bars(("language", "hours"), []))
    assert not tiles([])


def test_bars_and_media() -> None:
    shown = bars(("speaker", "hours", "lines"), [("anna", 4.0, 7), ("ken", 1.0, 5)])
    assert '<th>speaker</th><th class="number">hours</th><th></th>' in shown
    assert "width:100.0%" in shown
    assert "width:25.0%" in shown
    shown = picture("mel <1>", b"\x89PNG")
    assert 'src="data:image/png;base64,iVBORw=="' in shown
    assert 'alt="mel &lt;1&gt;"' in shown
    assert 'src="data:audio/wav;base64,' in sound("said", b"RIFF")


def test_a_histogram_tells_each_columns_count() -> None:
    shown = histogram([1, 4], ["0 s", "1 s", "<2 s>"], "lines")
    assert '<div title="0 s to 1 s: 1 lines" style="height:25.0%">' in shown
    assert '<div title="1 s to &lt;2 s&gt;: 4 lines" style="height:100.0%">' in shown
    assert "height:0.0%" in histogram([0], ["0 s", "1 s"], "lines")


def test_cells_of_a_wide_table_name_their_column() -> None:
    shown = table(("id", element("b", "n"), "<c>", "d"), [("x", 1, 2, 3)])
    for name in ("id", "n", "&lt;c&gt;", "d"):
        assert f'data-head="{name}"' in shown
    assert "data-head" not in table(("id", "n"), [("x", 1)])


def test_links_are_relative_where_they_can_be() -> None:
    page_folder = "/runs/mine/evaluation_000000010"
    assert 'href="../checkpoint_000000010"' in link(
        "checkpoint", "/runs/mine/checkpoint_000000010", page_folder
    )
    assert 'href="../a%20%23b"' in link("x", "s3://bucket/runs/a #b", "s3://bucket/runs/evaluation")
    assert 'href="../../../elsewhere/x"' in link("x", "/elsewhere/x", page_folder)
    assert "href" not in link("x", "s3://bucket/x", page_folder)

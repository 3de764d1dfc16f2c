"""HTML pages: text stays text, numbers are aligned and formatted, media lie in the page itself."""

import numpy as np

from data.html_page import Html, bar, element, page, picture, sound, table, text


def test_text_is_escaped_and_markup_is_not() -> None:
    assert text('<b> & "c"') == "&lt;b&gt; &amp; &quot;c&quot;"
    assert text(Html("<b>")) == "<b>"
    assert element("h2", "a < b", element("i", "c")) == "<h2>a &lt; b<i>c</i></h2>"
    assert element("p", id='"', class_="x") == '<p id="&quot;" class="x"></p>'


def test_a_page_has_its_title_twice_and_fetches_nothing() -> None:
    shown = page("a & b", [element("p", "c"), "<d>"])
    assert shown.startswith("<!doctype html>")
    assert "<title>a &amp; b</title>" in shown
    assert "<h1>a &amp; b</h1><p>c</p>&lt;d&gt;</body>" in shown
    assert "<script" not in shown
    assert "http" not in shown


def test_columns_of_numbers_are_aligned_and_formatted() -> None:
    shown = table(("id", "n", "mel"), [("<a>", np.int64(3), 0.123456), ("b", 4, None)], ".2f", "-")
    assert shown == (
        '<table><tr><th>id</th><th class="number">n</th><th class="number">mel</th></tr>'
        '<tr><td>&lt;a&gt;</td><td class="number">3</td><td class="number">0.12</td></tr>'
        '<tr><td>b</td><td class="number">4</td><td class="number">-</td></tr></table>'
    )


def test_tables_may_lack_a_header_or_rows() -> None:
    assert table((), []) == "<table></table>"
    assert table(("a",), []) == "<table><tr><th>a</th></tr></table>"
    assert table((), [(True,), (np.float32(2),)]) == (
        "<table><tr><td>True</td></tr><tr><td>2</td></tr></table>"
    )


def test_bars_and_media() -> None:
    assert "width:25.0%" in bar(0.25)
    shown = picture("mel <1>", b"\x89PNG")
    assert 'src="data:image/png;base64,iVBORw=="' in shown
    assert 'alt="mel &lt;1&gt;"' in shown
    assert '<audio controls src="data:audio/wav;base64,' in sound("said", b"RIFF")

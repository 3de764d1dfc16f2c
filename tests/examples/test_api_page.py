"""The snippets of docs/api.md run one after the other; the names that it lists exist."""

import pkgutil
import re

import pytest

from tests.test_house import ROOT

PAGE = ROOT / "docs/api.md"


@pytest.mark.medium
def test_the_snippets_run(shards, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    snippets = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert len(snippets) >= 10
    names: dict = {}
    for number, snippet in enumerate(snippets, 1):
        code = snippet.replace("shards/demo", str(shards)).replace("runs/api", str(tmp_path))
        exec(compile(code, f"docs/api.md, snippet {number}", "exec"), names)
    assert (tmp_path / "hello.wav").stat().st_size > 1000


def test_the_names_exist():
    # a package, a module and a name at least: two parts are a command
    dotted = re.findall(r"`((?:data|trainable|job)(?:\.\w+){2,})", PAGE.read_text())
    assert len(set(dotted)) > 20
    for name in set(dotted):
        pkgutil.resolve_name(name)  # raises

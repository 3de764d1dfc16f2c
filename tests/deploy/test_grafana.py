"""The board for Grafana is one, and asks for numbers that a run exports."""

import json
import re

from job.on_ray.watching.metrics import REPORTED, exported
from tests.test_house import ROOT

BOARD = json.loads((ROOT / "deploy/grafana.json").read_text())
PAGE = (ROOT / "docs/monitoring.md").read_text()
NAME = re.compile(r"\bray_[a-z0-9_]+")
LABELS = re.compile(r"[{,]\s*(\w+)\s*=~?")
SHOWN = re.compile(r"\{\{(\w+)\}\}")


def queries() -> list[tuple[str, str]]:
    """Expression and legend of each query of all panels."""
    return [(t["expr"], t["legendFormat"]) for panel in BOARD["panels"] for t in panel["targets"]]


def labels_of(name: str) -> set[str]:
    (label,) = {n.label for n in REPORTED if f"ray_bert_vits2_{n.name}" == name} or {""}
    return {"run", label} - {""}


def test_each_query_is_of_a_number_that_is_exported_and_of_labels_that_it_has():
    for expression, legend in queries():
        (name,) = NAME.findall(expression)
        assert name in exported(), expression
        assert {*LABELS.findall(expression), *SHOWN.findall(legend)} <= labels_of(name), expression


def test_each_number_is_on_the_board_and_on_the_page():
    shown = {name for expression, _ in queries() for name in NAME.findall(expression)}
    assert shown == exported().keys()
    for name, meaning in exported().items():
        assert f"| `{name}` | {meaning} |" in PAGE


def test_it_is_a_board():
    assert {"title", "uid", "schemaVersion", "panels", "templating"} <= BOARD.keys()
    ids = [panel["id"] for panel in BOARD["panels"]]
    assert len(set(ids)) == len(ids)
    variables = {each["name"] for each in BOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(BOARD["panels"])))
    assert used == variables == {"run", "datasource"}
    squares = [
        (x, y)
        for place in (panel["gridPos"] for panel in BOARD["panels"])
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(squares)) == len(squares)  # no panel lies on another
    assert all(0 <= x < 24 for x, _ in squares)
    for panel in BOARD["panels"]:
        assert panel["type"] in ("timeseries", "stat")
        assert panel["title"]

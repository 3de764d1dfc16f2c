"""What an epoch asks an object store for: the targets, and that a server counts as many."""

import json

import pytest

from benchmarks import shard_requests


@pytest.mark.medium
@pytest.mark.parametrize("grown", [0.0, 0.1, 0.5])
def test_an_epoch_of_many_utterances_keeps_the_targets(grown, monkeypatch):
    monkeypatch.setattr(shard_requests, "LOOKED_AT", 4_000)  # of 17,000, evenly spread
    figures = shard_requests.simulated(300_000, grown)
    assert figures["requests_per_utterance"] <= 0.3
    assert figures["bytes_ratio"] <= 1.05
    assert figures["padded"] <= 0.012
    assert figures["pairs_again"] <= 0.2


@pytest.mark.medium
def test_a_server_counts_what_is_simulated(tmp_path):
    file = tmp_path / "figures.json"
    argv = ["--sizes", "900", "--counted", "700", "--json", str(file)]
    shard_requests.main(argv)
    found = json.loads(file.read_text())
    assert set(found["sizes"]) == {"700", "900"}
    counted, simulated = found["counted"]["700"], found["sizes"]["700"]
    # the fill of the last step is counted too
    assert counted["requests_per_utterance"] == pytest.approx(
        simulated["requests_per_utterance"], rel=1e-9
    )
    assert counted["bytes_ratio"] == pytest.approx(1, abs=1e-9)

"""The command that fills a GPU's tables goes through its stages on a CPU, with small networks.

The fast suite leaves out those that take most of the time: the compiled step (torch.compile of the
parts is tested in tests/trainable/test_compiling.py), the parity of single steps, which is that of
tests/trainable/learning/test_single_steps.py, the count of launches, which is that of
test_launches.py, and bf16, whose stages are those of fp32.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import gpu
from benchmarks.gpu import MODES, Record, command_line, main, stages
from tests.test_house import ROOT

LONG = ("parity", "speed bf16", "speed bf16+compile", "launches fp32", "launches bf16")


def found_by(wanted: list[str], file: Path) -> dict:
    """Return what the command finds in stages, in a process of its own that imports no Ray."""
    argv = ["--device", "cpu", "--tiny", "--threads", "1", "--json", str(file)]
    argv += ["--stages", *wanted]
    code = (
        "import sys; from benchmarks.gpu import main; "
        f"main({argv!r}); assert 'ray' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(file.read_text())
    assert list(found) == wanted
    assert [name for name, own in found.items() if "error" in own] == [], done.stderr
    for mode in MODES:
        if (own := found.get(f"speed {mode}")) is not None:
            assert own["steps_per_s"] > 0 and own["flops"] > 0 and 0 < own["mfu"] < 1.5
    return found


@pytest.mark.slow
@pytest.mark.processes
def test_the_long_stages_on_a_cpu_without_ray(tmp_path):
    found = found_by(list(LONG), tmp_path / "gpu.json")
    assert max(found["parity"]["fp32"]) < 1e-6  # the same device
    assert 0 < max(found["parity"]["bf16"]) < 0.02
    assert found["launches fp32"]["counted"] > 1000


@pytest.mark.processes
@pytest.mark.medium
def test_the_short_stages_on_a_cpu_without_ray(tmp_path):
    wanted = [name for name in stages() if name not in LONG]
    assert len(wanted) == len(stages()) - len(LONG)
    found = found_by(wanted, tmp_path / "gpu.json")
    bits = {key: value for key, value in found["determinism"].items() if key != "seconds"}
    assert len(bits) == 3 and all(value is True for value in bits.values())
    assert len(found["pieces"]) == 23
    assert found["pieces"]["LSTM, ours"]["seconds"] > 0
    assert found["batch finder"]["max_utterances"] > 2
    assert found["feeding"]["decoded_utterances_per_s_and_core"] > 0


def test_the_file_holds_what_is_known_when_the_time_is_up(tmp_path, monkeypatch):
    ended = []
    monkeypatch.setattr(gpu.os, "_exit", ended.append)
    record = Record(tmp_path / "gpu.json")
    record.run("quick", lambda bench: {"value": 1}, None)
    record.run("wrong", lambda bench: {"value": 1 / 0}, None)
    record.run("slow", lambda bench: record.end() or {"value": 2}, None)
    assert ended == [0]
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert found["quick"]["value"] == 1
    assert "ZeroDivisionError" in found["wrong"]["error"]
    assert list(found) == ["quick", "wrong", "slow"]


@pytest.mark.parametrize("argv", [["--device", "cuda"], ["--device", "cpu"]])
def test_what_cannot_be_measured_is_refused(argv, monkeypatch, capsys):
    monkeypatch.setattr(gpu.torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as end:
        main(argv)
    assert end.value.code == 2
    assert "--tiny" in capsys.readouterr().err
    assert command_line().parse_args([]).minutes == 9

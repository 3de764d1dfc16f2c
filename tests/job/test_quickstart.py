"""docs/quickstart.md followed to the letter in a clean checkout, with own recordings."""

import shutil
import subprocess
import sys

import pytest
import yaml

from tests.job.conftest import DEMO, Command
from tests.test_house import ROOT

CORPUS = ROOT / "job/presets/demo_corpus"


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_quickstart_works_as_written(command: Command, tmp_path):
    """What the reader brings is the demo corpus under other names, and small networks."""
    lines = (CORPUS / "esd.list").read_text(encoding="utf-8").replace("|en_f1|", "|anna|")
    (tmp_path / "my.list").write_text(lines, encoding="utf-8")
    shutil.copytree(CORPUS / "wavs", tmp_path / "wavs")
    mine = yaml.safe_load(DEMO.read_text())
    mine["run"]["name"] = "mine"
    mine["data"] |= {"transcript": "my.list", "shards": "shards/mine"}
    mine["train"] |= {"max_steps": 6, "segment_size": 4096}
    mine["eval"] |= {"every_steps": 3, "samples": 1, "max_utterances": 2}
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(mine))
    argv = [
        sys.executable,
        "-m",
        "tools.follow_page",
        "docs/quickstart.md",
        "--only",
        "python -m job",
        "--bring",
        tmp_path,
    ]
    done = subprocess.run(
        argv, cwd=ROOT, env=command.env, capture_output=True, text=True, timeout=1100
    )
    told = [line for line in done.stdout.splitlines() if line.startswith(("status ", "left out: "))]
    print("\n" + "\n".join(told))
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    followed = [
        line.partition("job.")[2].split()[0] for line in told if line.startswith("status 0")
    ]
    assert followed == ["doctor", "prepare", "train", "runs", "synthesize", "evaluate", "export"]

"""Recordings of the demo corpus' utterances with silences between, and a recogniser of them."""

import json
import sys
from pathlib import Path

import numpy as np
import soundfile

CORPUS = Path(__file__).parents[3] / "job/presets/demo_corpus"
LINES = [line.split("|") for line in (CORPUS / "esd.list").read_text("utf-8").splitlines()]

# Answers from the true text: of the recording's line for whole ones, for slices what is given.
PROGRAM = """
import json, os, sys, time
texts = json.load(open({texts!r}, encoding="utf-8"))
for path in open(sys.argv[1], encoding="utf-8").read().splitlines():
    time.sleep({pause})
    with open({log!r}, "a") as log:
        log.write(path + chr(10))
    key = next(key for key in texts if path.endswith(key))
    print(json.dumps({{"path": path, "text": texts[key], "language": "en", "confidence": 0.9}}))
"""


def write_recording(path: Path, numbers: range, silence: float = 1.2) -> list[tuple[float, float]]:
    """Write utterances of the demo corpus one after the other; return where each lies, seconds."""
    rate, parts, places, length = 44100, [], [], 0
    for number in numbers:
        wav, _ = soundfile.read(CORPUS / LINES[number][0], dtype="float32")
        gap = np.zeros(int(silence * rate), np.float32)
        begin = length + len(gap)
        length = begin + len(wav)
        places.append((begin / rate, length / rate))
        parts += [gap, wav]
    parts.append(np.zeros(int(silence * rate), np.float32))
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.concatenate(parts), rate)
    return places


def write_recogniser(folder: Path, texts: dict[str, str], pause: float = 0.0) -> str:
    """Write a program that hears the text of the key that a path ends with; return its command."""
    table, program = folder / "texts.json", folder / "recogniser.py"
    table.write_text(json.dumps(texts), encoding="utf-8")
    log = str(folder / "heard.log")
    program.write_text(PROGRAM.format(texts=str(table), log=log, pause=pause), encoding="utf-8")
    return f"{sys.executable} {program}"

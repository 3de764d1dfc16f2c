"""How many sentences are understood: of a voice, and of the recordings it learnt from.

    python -m benchmarks.understood --corpus voice_corpus [--checkpoint runs/small/best] --json FILE

The validation split of the corpus of tools/make_voice_corpus.py, sentences that nobody trained on,
goes through a recogniser that has all of them to choose from (docs/small-voice.md).
"""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from job.voice.source import opened
from job.voice.voice import SpeechRequest, Voice
from trainable.config import GENERATORS
from trainable.evaluation.scorers import ClosedSetRecogniser

Sound = tuple[np.ndarray, int]
Line = dict[str, str]


def share(lines: Sequence[Line], sound: Callable[[Line], Sound]) -> dict[str, Any]:
    """Return the share of sentences that are recognised, and those that are not."""
    recogniser = ClosedSetRecogniser([line["text"] for line in lines])
    missed = [
        line["text"]
        for line in lines
        if recogniser.hear(*sound(line)) != recogniser.words(line["text"])
    ]
    return {"recognised": (len(lines) - len(missed)) / len(lines), "missed": missed}


def main() -> None:
    """Print the shares; with --json, write them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", type=Path, required=True, help="folder of the corpus")
    parser.add_argument("--checkpoint", help="run, checkpoint or voice to listen to")
    parser.add_argument("--weights", choices=GENERATORS, default=GENERATORS[0])
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    text = (options.corpus / "transcript.jsonl").read_text(encoding="utf-8")
    lines = [line for line in map(json.loads, text.splitlines()) if line["split"] == "validation"]

    def recorded(line: Line) -> Sound:
        return soundfile.read(options.corpus / line["path"], dtype="float32")

    figures = {"sentences": len(lines), "recordings": share(lines, recorded)}
    if options.checkpoint:
        with opened(options.checkpoint, options.weights, speaks_only=True) as folder:
            voice = Voice.load(folder, weights=options.weights)

        def spoken(line: Line) -> Sound:
            request = SpeechRequest(line["text"], line["speaker"], line["language"])
            return voice.say(request), voice.data.sampling_rate

        figures["synthesis"] = share(lines, spoken)
    print(json.dumps(figures, indent=2))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()

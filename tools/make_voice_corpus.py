"""Synthesise the corpus that the small voice learns from: hours of one clear English voice.

    apt-get install flite
    python -m tools.make_voice_corpus --out voice_corpus

flite's voice slt (CMU, of a free licence) speaks what a small grammar makes, half of it sentences
and half single words and phrases. The same release of flite makes the same corpus, to the byte.
Fifty further sentences, written by hand, are the validation split: nobody trains on them, they
measure whether a voice is understood (docs/small-voice.md).
"""

import argparse
import json
import random
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import soundfile
import yaml
from numpy.typing import NDArray

VOICE = "slt"
SPEAKER = "en_f1"  # as flite's slt is called in the demo's corpus
QUIET = 0.003  # below this amplitude (RMS over 10 ms) nothing is said
KEPT_S = 0.04  # of the silence at both ends, which is 0.3 s long as flite makes it
TEXTS = Path(__file__).with_name("voice_corpus")  # words, and the sentences held out


Grammar = Mapping[str, Sequence[str]]


def read_grammar() -> Grammar:
    """Return what each kind of words may become; {kind} in it stands for one of that kind."""
    rules = yaml.safe_load((TEXTS / "grammar.yaml").read_text(encoding="utf-8"))
    return {
        kind: choices.split() if isinstance(choices, str) else choices
        for kind, choices in rules.items()
    }


def expand(kind: str, grammar: Grammar, choose: random.Random) -> str:
    """Return one of a kind, with all that it stands for."""

    def chosen(kind: re.Match[str]) -> str:
        return expand(kind[1], grammar, choose)

    return re.sub(r"{(\w+)}", chosen, choose.choice(grammar[kind]))


def spelled(text: str) -> str:
    """Return a sentence with a capital, and `an` before vowels."""
    text = re.sub(r"\ba(?= [aeiou])", "an", text)
    return text[0].upper() + text[1:]


def texts(count: int, seed: int = 0) -> list[str]:
    """Return different phrases and sentences, none of which is held out."""
    grammar, choose = read_grammar(), random.Random(seed)
    held = set(held_out())
    made: dict[str, None] = {}
    while len(made) < count:
        text = spelled(expand("text", grammar, choose))
        if text not in held:
            made[text] = None
    return list(made)


def held_out() -> list[str]:
    """Return the sentences that nobody trains on."""
    return (TEXTS / "held_out.txt").read_text(encoding="utf-8").splitlines()


def speak(text: str, path: Path) -> None:
    """Write a sentence as flite speaks it, 16 kHz, with little silence at its ends."""
    subprocess.run(["flite", "-voice", VOICE, "-t", text, "-o", str(path)], check=True)
    wave, rate = soundfile.read(path)
    soundfile.write(path, without_silence(wave, rate), rate, subtype="PCM_16")


def without_silence(wave: NDArray[np.float64], rate: int) -> NDArray[np.float64]:
    """Cut the silence at both ends of a waveform [S], but for KEPT_S seconds of each.

    One that is silent altogether stays as it is.
    """
    window = rate // 100
    power = np.convolve(wave**2, np.full(window, 1 / window), "same")
    said = np.flatnonzero(power > QUIET**2)
    kept = int(KEPT_S * rate)
    return wave[max(said[0] - kept, 0) : said[-1] + kept] if len(said) else wave


def spoken(out: Path, split: str, texts: Sequence[str], jobs: int) -> list[dict[str, str]]:
    """Write OUT/<split>/<nnnn>.wav; return their lines for the transcript."""
    (out / split).mkdir(parents=True, exist_ok=True)
    files = [f"{split}/{number:04d}.wav" for number in range(len(texts))]
    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(speak, texts, [out / file for file in files]))
    return [
        {"path": file, "speaker": SPEAKER, "language": "EN", "text": text, "split": split}
        for file, text in zip(files, texts, strict=True)
    ]


def main() -> None:
    """Write OUT/transcript.jsonl, which job.prepare reads, and the sounds beside it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--texts", type=int, default=4000, help="texts to train on")
    parser.add_argument("--jobs", type=int, default=2, help="processes of flite at once")
    options = parser.parse_args()
    if shutil.which("flite") is None:
        raise SystemExit("flite is not installed: apt-get install flite")
    lines = [
        *spoken(options.out, "train", texts(options.texts), options.jobs),
        *spoken(options.out, "validation", held_out(), options.jobs),
    ]
    transcript = "".join(f"{json.dumps(line)}\n" for line in lines)
    (options.out / "transcript.jsonl").write_text(transcript, encoding="utf-8")


if __name__ == "__main__":
    main()

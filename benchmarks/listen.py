"""How soon job.listen is heard: `python -m benchmarks.listen [--threads 2] [--json FILE]`.

The voice has the full model's sizes and random weights (see benchmarks.synthesis). It prints the
seconds from a request until the sound of its first sentence has come from the page's server
(`first_audio_s`), of these the seconds in which that sentence was spoken (`sentence_s`), and the
rest (`added_s`), as medians; the seconds of the same sentence without a server (`alone_s`), in
turns with these; and how many of ten requests at once are answered, and in how many seconds.
"""

import argparse
import http.client
import json
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.synthesis import BASE, LENGTH_SCALE, SPEAKER, TEXT, random_voice
from job.listen import listening
from job.options.listen import LOOPBACK
from job.serve.local import server_of
from job.serve.voices import THIS, Spoken, Voices
from job.settings.cli import read_config
from job.voice.voice import SpeechRequest, Voice

AT_ONCE = 10


class OneVoice(Voices):
    """A voice without a checkpoint."""

    def __init__(self, voice: Voice) -> None:
        self.own = voice
        self.seconds = 0.0  # that the last sentence has taken
        self.source = SPEAKER
        self.run = None
        self.choices = (THIS,)
        self._lock = threading.Lock()

    def _voice(self, which: str) -> Voice:
        return self.own

    def say(self, wanted: Sequence[tuple[str, SpeechRequest]]) -> list[Spoken]:
        """Speak sentences, and note how long that takes."""
        begin = time.perf_counter()
        spoken = super().say(wanted)
        self.seconds = time.perf_counter() - begin
        return spoken


@contextmanager
def served(voices: Voices) -> Iterator[int]:
    """Serve voices on a port of loopback, for as long as the block lasts."""
    with listening(LOOPBACK, 0) as bound:
        server = server_of(voices, LOOPBACK)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield bound.getsockname()[1]
        server.should_exit = True
        thread.join()


def first_line(port: int, request: SpeechRequest) -> tuple[float, dict[str, Any]]:
    """Return the seconds until the first sentence has come, and what came."""
    given = {"text": request.text, "speaker": SPEAKER, "length_scale": LENGTH_SCALE}
    begin = time.perf_counter()
    connection = http.client.HTTPConnection(LOOPBACK, port)
    headers = {"Content-Type": "application/json"}
    connection.request("POST", "/speak", json.dumps(given), headers)
    line = json.loads(connection.getresponse().readline())
    seconds = time.perf_counter() - begin
    connection.close()
    return seconds, line


def measure(voice: Voice, repeats: int, text: str = TEXT) -> dict[str, Any]:
    """Return the figures of a voice.

    Args:
        voice: the voice that speaks.
        repeats: turns that count; the first one, which loads the models, does not.
        text: text whose first sentence is spoken.
    """
    whole = SpeechRequest(text, SPEAKER, length_scale=LENGTH_SCALE)
    sentence = whole.by_sentence()[0]
    voices = OneVoice(voice)
    alone = []
    spoken = []
    heard = []
    with served(voices) as port:
        for _ in range(repeats + 1):
            begin = time.perf_counter()
            voice.say(sentence)
            alone.append(time.perf_counter() - begin)
            seconds, line = first_line(port, sentence)
            assert "wav" in line, line
            heard.append(seconds)
            spoken.append(voices.seconds)
        begin = time.perf_counter()
        with ThreadPoolExecutor(AT_ONCE) as pool:
            replies = list(pool.map(lambda _: first_line(port, sentence)[1], range(AT_ONCE)))
        together = time.perf_counter() - begin
    added = [whole - own for whole, own in zip(heard[1:], spoken[1:], strict=True)]
    return {
        "sentence_s": median(spoken[1:]),
        "first_audio_s": median(heard[1:]),
        "added_s": median(added),
        "alone_s": median(alone[1:]),
        "at_once": AT_ONCE,
        "answered": sum("wav" in line for line in replies),
        "at_once_s": together,
        "runs_s": {"sentence": spoken[1:], "first_audio": heard[1:], "alone": alone[1:]},
    }


def main() -> None:
    """Run the command."""
    made = argparse.ArgumentParser(prog="python -m benchmarks.listen", description=__doc__)
    made.add_argument("--threads", type=int, default=2)
    made.add_argument("--preset", type=Path, default=BASE, help="sizes of the networks")
    made.add_argument("--device", default="cpu", help="cpu or cuda")
    made.add_argument("--repeats", type=int, default=5)
    made.add_argument("--json", type=Path, nargs="?", help="write the figures to a file too")
    args = made.parse_args()
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        voice = random_voice(read_config(args.preset), folder, args.device)
        result = measure(voice, args.repeats)
    result |= {"threads": args.threads, "device": args.device, "torch": torch.__version__}
    print(json.dumps(result, indent=1))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()

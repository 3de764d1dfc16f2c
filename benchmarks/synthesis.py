"""How fast a voice speaks: `python -m benchmarks.synthesis [--threads 2] [--preset FILE]`.

It speaks a text sentence by sentence with the full model and random weights, and prints medians:
seconds of computation per second of audio, and seconds until the first sentence can be heard,
beside those of the whole text. The BERT models are random and have 2 layers of the full width: the
published ones have 22, whose time is to be added. Nothing is downloaded.
"""

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch

from data.plan.epoch_plan import Position
from job.settings.cli import read_config
from job.settings.config import Config
from job.voice.voice import SpeechRequest, Voice
from trainable.networks.generator.build import build_generator
from trainable.run.format import CheckpointInfo

BASE = Path(__file__).parents[1] / "job/presets/base.yaml"
SPEAKER = "anna"
# untrained networks give a token little more than a frame: this makes some 12 phones per second
LENGTH_SCALE = 3.0
TEXT = (
    "[EN]The rain outside is getting heavier, and nobody knows when it will stop. "
    "[ZH]明天早上我们坐火车去北京看朋友。"
    "[JP]駅前の小さな喫茶店で、温かいお茶を飲みながら待っています。"
    "[EN]Please send me the tickets before nine o'clock tonight."
)


def random_voice(cfg: Config, folder: str, device: str) -> Voice:
    """Return a voice of the configuration's sizes with random weights.

    Args:
        cfg: the configuration.
        folder: folder of its BERT models.
        device: device that computes.
    """
    bert = replace(
        cfg.data.bert, zh="random", jp="random", en="random", random_width=cfg.model.bert_channels
    )
    data = replace(cfg.data, shards=folder, bert=bert)
    torch.manual_seed(0)
    g = build_generator(cfg.model, cfg.train.segment_size, data).eval().to(device)
    return Voice(g, data, CheckpointInfo(Position(), "", "", {}, {SPEAKER: 0}, 1))


def measure(voice: Voice, repeats: int, text: str = TEXT) -> dict[str, Any]:
    """Return the figures of a voice.

    Args:
        voice: the voice that speaks.
        repeats: runs that count; the first run, which loads the models, does not.
        text: text of several sentences.

    Returns:
        Medians: seconds per second of audio, until the first sentence is there, and of the whole
        text; the seconds of audio of the first sentence and of all; and every run's seconds.
    """
    sentences = SpeechRequest(text, SPEAKER, length_scale=LENGTH_SCALE).by_sentence()
    rate = voice.data.sampling_rate
    first = []
    whole = []
    for _ in range(repeats + 1):
        begin = time.perf_counter()
        audio: list[float] = []
        for sentence in sentences:
            audio.append(len(voice.say(sentence)) / rate)
            if len(audio) == 1:
                first.append(time.perf_counter() - begin)
        whole.append(time.perf_counter() - begin)
    first = first[1:]
    whole = whole[1:]
    return {
        "real_time_factor": median(whole) / sum(audio),
        "first_audio_s": median(first),
        "whole_text_s": median(whole),
        "first_sentence_audio_s": audio[0],
        "audio_s": sum(audio),
        "sentences": len(audio),
        "runs_s": whole,
    }


def main() -> None:
    """Run the command."""
    made = argparse.ArgumentParser(prog="python -m benchmarks.synthesis", description=__doc__)
    made.add_argument("--threads", type=int, default=2)
    made.add_argument("--preset", type=Path, default=BASE, help="sizes of the networks")
    made.add_argument("--device", default="cpu", help="cpu or cuda")
    made.add_argument("--repeats", type=int, default=5)
    made.add_argument("--json", type=Path, help="write the figures")
    args = made.parse_args()
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        result = measure(random_voice(read_config(args.preset), folder, args.device), args.repeats)
    result |= {"threads": args.threads, "device": args.device, "torch": torch.__version__}
    print(json.dumps(result, indent=1))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()

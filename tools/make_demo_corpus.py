"""Synthesise the demonstration corpus, job/presets/demo_corpus, with voices of free software.

    apt-get install espeak-ng flite
    python -m tools.make_demo_corpus

Six speakers, two per language: espeak-ng speaks Chinese (two of its variants), Open JTalk Japanese
(pyopenjtalk-plus with the voice in its wheel, and the same one lower and slower), flite English
(two recorded voices of CMU).
"""

import argparse
import contextlib
import io
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

RATE = 44100
OUT = Path("job/presets/demo_corpus")
MARGIN = (0.08, 0.15)  # seconds of near silence before and after are drawn from this range
PEAK_DB = -3.0  # of full scale
NOISE_DB = -84.0  # the noise of a room, as a microphone never records digital silence

TEXTS = {
    "ZH": [
        "早上好，今天天气真不错。",
        "他把钥匙忘在办公室里了。",
        "请问，火车站怎么走？",
        "一共二十五块八毛。",
        "窗外的雨越下越大了！",
        "我不想去，也不能去。",
        "会议改到下午3点30分。",
        "这里的牛肉面很有名。",
        "等一等，我马上就来。",
        "老师让我们再读一遍。",
        "妹妹一边唱歌，一边画画。",
        "昨天晚上你去哪儿了？",
        "这本书有365页。",
        "孩子们在院子里跑来跑去。",
        "苹果和葡萄都很便宜。",
        "别着急，慢慢说。",
        "他终于明白了我的意思。",
        "好不好吃，尝一尝就知道。",
    ],
    "JP": [
        "おはようございます。",
        "鍵を事務所に忘れました。",
        "すみません、駅はどこですか？",
        "合計で2500円になります。",
        "外の雨が強くなってきた！",
        "コーヒーとケーキをください。",
        "この店のラーメンは有名です。",
        "ちょっと待って、すぐ行くから。",
        "妹は歌いながら絵を描いている。",
        "先生が本を三回読みました。",
        "明日の天気は晴れでしょう。",
        "会議は午後3時からです。",
        "昨日の夜、どこへ行ったの？",
        "子供たちが庭で遊んでいる。",
        "りんごとぶどうが安いですよ。",
        "ゆっくり話してください。",
        "やっと意味が分かりました。",
        "あの山はとても高いですね。",
    ],
    "EN": [
        "Good morning, how are you today?",
        "He left his keys in the office.",
        "Which bus goes to the station?",
        "That will be 25 dollars, please.",
        "The rain is getting heavier!",
        "I don't want to go, and I can't.",
        "The meeting has moved to three o'clock.",
        "This place is famous for its noodles.",
        "Wait a moment, I'm on my way.",
        "Please read the chapter again.",
        "My sister sings while she paints.",
        "Where did you go last night?",
        "This book has 365 pages.",
        "The children are playing in the yard.",
        "Apples and grapes are cheap today.",
        "Take your time, there's no hurry.",
        "Now I understand what you mean.",
        "That mountain is very high.",
    ],
}


@dataclass(frozen=True)
class Speaker:
    """A voice: pitch and speed in the units of its engine."""

    name: str
    language: str
    voice: str
    pitch: float = 0.0
    speed: float = 1.0


# espeak-ng's plain "cmn" spells Han characters out in English; cmn-latn-pinyin reads them
SPEAKERS = (
    Speaker("zh_f1", "ZH", "cmn-latn-pinyin+f2", 70, 190),
    Speaker("zh_m1", "ZH", "cmn-latn-pinyin+m3", 40, 175),
    Speaker("jp_f1", "JP", "mei", 0.0, 1.05),
    Speaker("jp_m1", "JP", "mei", -6.0, 0.95),
    Speaker("en_f1", "EN", "slt"),
    Speaker("en_m1", "EN", "rms"),
)


def run(program: str, *arguments: str, text: str | None = None) -> None:
    """Run a synthesiser, with a text on its standard input."""
    found = shutil.which(program)
    if found is None:
        raise SystemExit(f"{program} is not installed: apt-get install {program}")
    subprocess.run(
        [found, *arguments], input=text, encoding="utf-8", check=True, capture_output=True
    )


def speak(speaker: Speaker, text: str, path: Path) -> tuple[np.ndarray, int]:
    """Return float samples between -1 and 1, and their rate, Hz."""
    if speaker.language == "ZH":
        settings = ["-v", speaker.voice]
        settings += ["-p", str(int(speaker.pitch)), "-s", str(int(speaker.speed))]
        run("espeak-ng", *settings, "-w", str(path), "--stdin", text=text)
        return soundfile.read(path, dtype="float32")
    if speaker.language == "EN":
        run("flite", "-voice", speaker.voice, "-t", text, "-o", str(path))
        return soundfile.read(path, dtype="float32")
    with contextlib.redirect_stdout(io.StringIO()):
        import pyopenjtalk
    samples, rate = pyopenjtalk.tts(text, speed=speaker.speed, half_tone=speaker.pitch)
    return (samples / 32768).astype(np.float32), rate


def trim(samples: np.ndarray, rate: int) -> np.ndarray:
    """Cut off what lies below -45 dB of the peak at both ends."""
    frame = rate // 100
    level = np.abs(samples[: len(samples) // frame * frame]).reshape(-1, frame).max(axis=1)
    loud = np.flatnonzero(level > np.abs(samples).max() * 10 ** (-45 / 20))
    return samples[loud[0] * frame : (loud[-1] + 1) * frame]


def finish(samples: np.ndarray, rate: int, generator: np.random.Generator) -> np.ndarray:
    """Return 16-bit samples at 44.1 kHz with level, margins, and the faint noise of a room."""
    samples = soxr.resample(trim(samples, rate), rate, RATE, quality="HQ")
    samples = samples * (10 ** (PEAK_DB / 20) / np.abs(samples).max())
    before, after = (np.zeros(int(RATE * generator.uniform(*MARGIN)), np.float32) for _ in range(2))
    samples = np.concatenate([before, samples, after])
    samples = samples + generator.normal(0, 10 ** (NOISE_DB / 20), len(samples))
    return np.clip(np.round(samples * 32767), -32768, 32767).astype(np.int16)


def check(name: str, samples: np.ndarray) -> None:
    """Refuse what cannot be speech: too short, too long, too quiet, or clipped."""
    seconds = len(samples) / RATE
    level = 20 * np.log10(np.sqrt(np.mean((samples / 32768.0) ** 2)))
    clipped = np.mean(np.abs(samples.astype(int)) >= 32767)
    if not (1.0 <= seconds <= 5.0 and -35 <= level <= -6 and clipped == 0):
        raise SystemExit(f"{name}: {seconds:.2f} s, {level:.1f} dBFS RMS, {clipped:.2%} clipped")


def main() -> None:
    """Write OUT/wavs/<speaker>/<nnn>.flac and OUT/esd.list (path|speaker|language|text)."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=OUT)
    out = parser.parse_args().out
    generator = np.random.default_rng(0)
    lines = []
    seconds = 0.0
    size = 0
    with tempfile.TemporaryDirectory() as folder:
        for index, speaker in enumerate(SPEAKERS):
            (out / "wavs" / speaker.name).mkdir(parents=True, exist_ok=True)
            # the two speakers of a language take turns, so that each says half of its texts
            for number, text in enumerate(TEXTS[speaker.language][index % 2 :: 2]):
                name = f"wavs/{speaker.name}/{number:03d}.flac"
                samples = finish(*speak(speaker, text, Path(folder) / "said.wav"), generator)
                check(name, samples)
                soundfile.write(out / name, samples, RATE, subtype="PCM_16", compression_level=1.0)
                lines.append(f"{name}|{speaker.name}|{speaker.language}|{text}\n")
                seconds += len(samples) / RATE
                size += (out / name).stat().st_size
    (out / "esd.list").write_text("".join(lines), encoding="utf-8")
    print(f"{len(lines)} utterances, {seconds:.0f} s, {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()

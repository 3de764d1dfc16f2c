"""The sounds that the report holds: excerpts of recordings, as shards hold them, as MP3."""

import io
from collections.abc import Iterable

import soundfile
import soxr

from data.audio.recording import decode_audio, read_audio
from data.config import DataConfig
from data.files import UnreachableError
from data.quality.book import Flagged
from data.rejected import RejectedError

SECONDS = 8
MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)  # Hz


def excerpts(lines: Iterable[Flagged], cfg: DataConfig) -> dict[str, bytes | str]:
    """Return recording -> its beginning as MP3, or why it cannot be heard.

    Args:
        lines: lines with these recordings.
        cfg: how they are decoded.
    """
    return {line.uri: _excerpt(line.uri, cfg) for line in lines}


def _excerpt(uri: str, cfg: DataConfig) -> bytes | str:
    try:
        wav = decode_audio(read_audio(uri), cfg)
    except (RejectedError, UnreachableError) as error:
        return f"(cannot be played: {error})"
    rate = cfg.sampling_rate
    wav = wav[: SECONDS * rate]
    if rate not in MP3_RATES:
        rate = max(MP3_RATES)
        wav = soxr.resample(wav, cfg.sampling_rate, rate)
    sink = io.BytesIO()
    soundfile.write(sink, wav, rate, format="MP3")
    return sink.getvalue()

"""Reads sounds and has them recognised; what cannot be heard is a result too."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

from data.audio.recording import decode_audio, read_audio
from data.config import DataConfig
from data.rejected import Reason, RejectedError
from data.transcribe.recogniser import LONGEST_SECONDS, RATE, Recogniser, Sound


def hear_slices(
    slices: Sequence[dict[str, Any]],
    cfg: DataConfig,
    recogniser: Recogniser,
    guarded: Callable[[str], AbstractContextManager] = nullcontext,
) -> list[dict[str, Any]]:
    """Recognise slices, or whole recordings.

    Args:
        slices: `name`, `version`, `number`, `uri` and `language` (code, or None) of each.
        cfg: the configuration.
        recogniser: is called once there is something to hear.
        guarded: what a recording, given its URI, is read and decoded in.

    Returns:
        What the journal keeps of each: `name`, `version`, `number`; `text`, `language` and
        `confidence`; `problem` ([reason, detail], or None).

    Raises:
        OSError: the store does not answer.
        ValueError: the recogniser fails.
    """
    results, sounds = [], []
    for each in slices:
        result = {key: each[key] for key in ("name", "version", "number")}
        result |= {"text": "", "language": "", "confidence": None, "problem": None}
        results.append(result)
        try:
            with guarded(each["uri"]):
                sounds.append((result, _read(each, cfg)))
        except RejectedError as error:
            result["problem"] = [error.reason.value, error.detail]
    if sounds:
        heard = recogniser([sound for _, sound in sounds])
        for (result, _), said in zip(sounds, heard, strict=True):
            result |= {
                "text": said.text,
                "language": said.language,
                "confidence": said.confidence,
            }
    return results


def _read(item: dict[str, Any], cfg: DataConfig) -> Sound:
    """Read and decode a sound.

    Raises:
        RejectedError: it cannot be used; data.rejected has the reasons.
        UnreachableError: the store does not answer.
    """
    content = read_audio(item["uri"])
    # as it is; how short it may be is decided elsewhere
    whole = {"trim_db": None, "peak": None, "loudness": None, "min_seconds": 0.0}
    plain = replace(cfg, sampling_rate=RATE, mel_fmax=None, **whole)  # type: ignore[arg-type]
    wav = decode_audio(content, plain)
    if len(wav) > LONGEST_SECONDS * RATE and cfg.asr.command is None:
        detail = f"longer than the {LONGEST_SECONDS} s that are recognised at once"
        raise RejectedError(Reason.TOO_LONG, detail)
    return Sound(item["uri"], content, wav, item["language"])

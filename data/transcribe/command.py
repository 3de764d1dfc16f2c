"""A recogniser by plug-in: any command that is given a file of wavs.

It is called with the name of a text file as its last argument, which holds the path of one wav per
line, and prints one line of JSON per wav, in any order:

    {"path": "...", "text": "what is said", "language": "en", "confidence": 0.93}

`language` may be left out where data.asr.language is set or a transcript tells it, `confidence`
always. It runs without a shell, and not once per wav but once per batch (`data.asr.batch`).
"""

import json
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from data.files import is_local, located
from data.settings.asr import AsrConfig
from data.transcribe.recogniser import Heard, Sound

SHOWN = 200  # characters of what a command says when it fails


def check_command(command: str) -> None:
    """Refuse a command that is not there.

    Raises:
        ValueError: names the key.
    """
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise ValueError(f"data.asr.command is {command!r}: {error}") from error
    if not words or shutil.which(words[0]) is None:
        raise ValueError(
            f"data.asr.command is {command!r}: there is no program {words[0] if words else ''!r} "
            "here: install it, or write its path"
        )


class CommandRecogniser:
    """Recognises by a command.

    Args:
        cfg: `command`, `language`.
        folder: where it runs, if that is there.
    """

    def __init__(self, cfg: AsrConfig, folder: str = "") -> None:
        assert cfg.command is not None
        self.words = shlex.split(cfg.command)
        self.language = cfg.language
        self.folder = folder if folder and Path(folder).is_dir() else None

    def __call__(self, sounds: Sequence[Sound]) -> list[Heard]:
        """Return what the command prints for sounds, in their order.

        Raises:
            ValueError: it fails, or what it prints is not what is wanted.
        """
        with tempfile.TemporaryDirectory() as folder:
            paths = [
                _local(sound, Path(folder) / f"{number}.wav") for number, sound in enumerate(sounds)
            ]
            listed = Path(folder) / "wavs.txt"
            listed.write_bytes(b"".join(os.fsencode(f"{path}\n") for path in paths))
            told = dict(self._answers(self._run(listed)))
        missing = [path for path in paths if path not in told]
        if missing:
            raise ValueError(
                f"{self._name} printed no line for {missing[0]} ({len(missing)} of {len(paths)} "
                "wavs): it must print one line of JSON with `path` per wav"
            )
        return [self._heard(told[path], sound) for path, sound in zip(paths, sounds, strict=True)]

    @property
    def _name(self) -> str:
        return f"data.asr.command {self.words[0]}"

    def _run(self, listed: Path) -> str:
        try:
            done = subprocess.run(
                [*self.words, str(listed)],
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                cwd=self.folder,
            )
        except OSError as error:
            raise ValueError(f"{self._name} cannot be run: {error.strerror}") from error
        if done.returncode:
            said = (done.stderr.strip() or "it says nothing")[-SHOWN:]
            raise ValueError(f"{self._name} ended with status {done.returncode}: {said}")
        return done.stdout

    def _answers(self, printed: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield path and answer of each line of JSON; other lines are the command's own."""
        for line in printed.splitlines():
            if not line.startswith("{"):
                continue
            try:
                answer = json.loads(line)
            except ValueError as error:
                raise ValueError(f"{self._name} printed {line[:SHOWN]!r}: no JSON") from error
            if not isinstance(answer.get("path"), str) or not isinstance(answer.get("text"), str):
                raise ValueError(f"{self._name} printed {line[:SHOWN]!r}, without path or text")
            yield answer["path"], answer

    def _heard(self, answer: dict[str, Any], sound: Sound) -> Heard:
        language = answer.get("language") or sound.language or self.language
        confidence = answer.get("confidence")
        if not isinstance(language, str):
            raise ValueError(
                f"{self._name} tells no language for {answer['path']}: have it print `language`, "
                "or set data.asr.language"
            )
        if confidence is not None and (
            not isinstance(confidence, int | float) or not 0 <= confidence <= 1
        ):
            raise ValueError(f"{self._name} printed the confidence {confidence!r}: give 0 to 1")
        return Heard(" ".join(answer["text"].split()), language, confidence)


def _local(sound: Sound, copy: Path) -> str:
    """Return the path of a sound on this machine, where a copy is written if it is elsewhere."""
    if is_local(sound.uri):
        return located(sound.uri)[1]
    copy.write_bytes(sound.content)
    return str(copy)

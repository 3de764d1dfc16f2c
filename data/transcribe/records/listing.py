"""Which recordings there are, and who speaks in them, by folder or file name."""

import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from data.files import ascii_name, below, located, reachable
from data.names import visible_name
from data.settings.asr import AsrConfig

# what libsndfile may read; the second kind it does not, and the ledger says so
READ = (
    *("wav", "wave", "flac", "ogg", "oga", "opus", "mp3"),
    *("aif", "aiff", "aifc", "au", "snd", "caf", "w64", "rf64", "sph", "nist", "voc"),
)
CONVERTED_FIRST = ("m4a", "mp4", "aac", "wma", "webm", "mkv", "mov", "amr", "ac3", "ape", "wv")
# what a store or a disk tells of a file that changes with its content
_VERSION = ("size", "mtime", "ETag", "etag", "md5Hash", "LastModified")


@dataclass(frozen=True)
class Source:
    """A recording.

    Attributes:
        name: its path below the folder of the recordings.
        uri: where it is.
        version: changes with its content.
    """

    name: str
    uri: str
    version: str


def find_recordings(root: str, out: str = "") -> tuple[list[Source], int]:
    """Return the recordings of a folder and of all below it, sorted by name.

    Args:
        root: folder or URI; or one recording.
        out: folder or URI that is left out.

    Returns:
        The recordings, and how many other files there are.

    Raises:
        ValueError: there is no such folder, or no recording in it.
        OSError: it cannot be read.
    """
    fs, path = located(root)
    with reachable(root):
        fs.invalidate_cache(path)
        if not fs.exists(path):
            raise ValueError(f"--recordings {root}: there is no such folder or file")
        found: Any = fs.find(path, detail=True)
    prefix = "" if isinstance(fs, LocalFileSystem) else root.partition("://")[0] + "://"
    avoided = located(out)[1] if out else None
    sources, others = [], 0
    for full, info in sorted(found.items()):
        if avoided is not None and full.startswith(f"{avoided}/"):
            continue
        name = posixpath.relpath(full, path) if full != path else posixpath.basename(full)
        if name.startswith(".") or "/." in name:
            continue
        if _ending(name) in (*READ, *CONVERTED_FIRST):
            sources.append(Source(name, prefix + full, _version(info)))
        else:
            others += 1
    if not sources:
        raise ValueError(
            f"--recordings {root} holds no recording ({others} other files): give the folder of "
            f"files that end in .{', .'.join(READ[:7])}, ..."
        )
    return sources, others


def _ending(name: str) -> str:
    return name.rpartition(".")[2].lower()


def _version(info: Mapping[str, Any]) -> str:
    return " ".join(str(info[key]) for key in _VERSION if info.get(key) is not None)


def speaker_of(name: str, root: str, cfg: AsrConfig) -> str:
    """Return who speaks in a recording.

    Args:
        name: its path below `root`.
        root: folder or URI of the recordings.
        cfg: `speaker`, `speaker_pattern`.

    Raises:
        ValueError: nobody, or a name that no transcript can hold; names the recording.
    """
    if cfg.speaker_pattern is not None:
        found = re.search(cfg.speaker_pattern, name)
        speaker = found[1] if found and found[1] else ""
        key = "data.asr.speaker_pattern"
    elif cfg.speaker == "file":
        speaker = posixpath.basename(name).rpartition(".")[0]
        key = "data.asr.speaker"
    else:
        folder = name if "/" in name else root.rstrip("/").replace("://", "/")
        speaker = folder.split("/")[0 if "/" in name else -1]
        key = "data.asr.speaker"
    speaker = visible_name(speaker)
    if not speaker:
        raise ValueError(f"{name}: {key} finds no speaker in this path: correct it")
    if "|" in speaker or not speaker.isprintable():
        raise ValueError(
            f"{name}: the speaker {speaker!r} holds a sign that transcripts may not have: rename "
            "the folder or file, or set data.asr.speaker_pattern"
        )
    return speaker


def slice_path(name: str, number: int) -> str:
    """Return where a slice lies below the folder that is written.

    Args:
        name: name of the recording.
        number: number of the slice, from 1.
    """
    return below("wavs", "/".join(map(ascii_name, name.split("/")))) + f"/{number:05}.wav"

"""Whether a file of audio is whole: a recording that was cut would be kept with its whole text."""

import re

from data.rejected import Reason, RejectedError

# bytes by which honest headers differ from their files: padding, or the header counted as sound
SLACK_BYTES = 64
# samples that a decoder may keep back at the end
SLACK_SECONDS = 0.01
# sizes that writers to a pipe give, who do not know how much will follow
UNKNOWN_BYTES = 0x7FFF0000
UNKNOWN_FRAMES = 1 << 48

# what libsndfile says of the sizes in a header (WAV, AIFF, RF64, W64, AU, SVX, WVE)
_SIZE = re.compile(
    r"^ *(?:RIFF|RIFF size|FORM|SSND|BODY|data|data size|data length) *:? *"
    r"(\d+) \(?should be (\d+)",
    re.MULTILINE | re.IGNORECASE,
)
_NO_CHUNK = re.compile(r"Unknown chunk marker \(\w+\) at position (\d+)\. Exiting parser")
_SPHERE_COUNT = re.compile(rb"sample_count -i (\d+)")


def check_header(content: bytes, log: str, frames: int) -> None:
    """Reject a file whose header promises more, or less, than it holds.

    Args:
        content: bytes of the file.
        log: what libsndfile noted while it read the header (`SoundFile.extra_info`).
        frames: samples per channel that it found.

    Raises:
        RejectedError: truncated_audio.
    """
    for declared, held in (map(int, sizes) for sizes in _SIZE.findall(log)):
        if held + SLACK_BYTES < declared < UNKNOWN_BYTES:
            raise _cut(f"its header promises {declared} bytes, it holds {held}")
    if "truncated file" in log:
        raise _cut("its header promises more than it holds")
    if content.startswith(b"OggS"):
        _check_last_page(content)
    if content.startswith(b"NIST_1A") and (count := _SPHERE_COUNT.search(content[:1024])):
        check_decoded(frames, int(count[1]), rate=0)
    if beyond := _NO_CHUNK.search(log):
        _check_rest(content[int(beyond[1]) :])


def check_decoded(decoded: int, promised: int, rate: int) -> None:
    """Reject a file that ends before the samples that its header promises.

    Args:
        decoded: samples per channel that could be decoded.
        promised: samples per channel that were asked for and that the header promises.
        rate: sampling rate, Hz, for the tolerance.

    Raises:
        RejectedError: truncated_audio.
    """
    if decoded + SLACK_SECONDS * rate < promised < UNKNOWN_FRAMES:
        raise _cut(f"its header promises {promised} samples, {decoded} could be decoded")


def knows_its_length(content: bytes, fmt: str) -> bool:
    """Tell whether a file says how long it is; an MP3 without Xing's header can only guess."""
    return fmt != "MP3" or any(tag in content for tag in (b"Xing", b"Info", b"VBRI"))


def _check_last_page(content: bytes) -> None:
    """Reject an Ogg file whose last page is cut (RFC 3533, section 6)."""
    begin = content.rfind(b"OggS")
    head = content[begin : begin + 27]
    lacing = content[begin + 27 : begin + 27 + head[-1]] if len(head) == 27 else b""
    whole = len(head) == 27 and len(lacing) == head[-1]
    if not whole or begin + 27 + len(lacing) + sum(lacing) > len(content):
        raise _cut("its last page is incomplete")


def _check_rest(rest: bytes) -> None:
    """Reject sound behind the end that the header names; padding and ID3 tags are none."""
    if rest.startswith((b"ID3", b"TAG")) or len(rest) <= SLACK_BYTES or not rest.strip(b"\0"):
        return
    raise RejectedError(
        Reason.TRUNCATED_AUDIO,
        f"its header ends the sound {len(rest)} bytes before the file ends: write it again",
    )


def _cut(what: str) -> RejectedError:
    return RejectedError(Reason.TRUNCATED_AUDIO, f"the recording is cut off: {what}")

"""The layouts that are known: one declaration each, from which all else follows.

Sources of the shapes: the README of each corpus or trainer.
"""

import re

from data.layouts.layout import AUDIO, Layout

_NEAR = ((".", "{path}"), ("raw", "{path}"), ("wavs", "{path}"))
_ABOVE = tuple(("/".join([".."] * up), "{path}") for up in range(1, 5))
# of a list of absolute paths that was written on another machine
_MOVED = ((".", "{file}"), (".", "{stem}/{file}"), ("..", "{stem}/{file}"))
_LIST_FILES = (r"/esd\.list$", r"/metadata\.list$", r"\.list$")


def _hanzi(text: str) -> str:
    """Return the characters of AISHELL-3's text, each of which its pinyin follows."""
    words = text.split()
    return "".join(word for word in words if not re.fullmatch(r"[a-zA-Z]+\d", word))


LAYOUTS = (
    Layout(
        "esd",
        files=_LIST_FILES,
        named=False,
        audio=_NEAR + _ABOVE + _MOVED,
        speaker="",
        what="path|speaker|language|text",
    ),
    Layout(
        "common_voice",
        form="table",
        files=(r"/validated\.tsv$", r"/(train|dev|test|other)\.tsv$"),
        audio=((".", "clips/{path}"), (".", "{path}"), ("..", "clips/{path}")),
        what="client_id, path, sentence, locale",
    ),
    Layout(
        "aishell3",
        files=(r"/content\.txt$",),
        patterns=(r"(?P<id>(?P<speaker>\w{7})\w+)\.wav[\t ]+(?P<text>.+)",),
        audio=((".", "wav/{speaker}/{id}.wav"), (".", "{speaker}/{id}.wav")),
        language="ZH",
        text=_hanzi,
        what="SSB00050001.wav<tab>character pinyin ...",
    ),
    Layout(
        "jsut",
        files=(r"/transcript_utf8\.txt$",),
        patterns=(r"(?P<id>[^:]+):(?P<text>.*)",),
        audio=((".", "wav/{id}.wav"),),
        speaker="JSUT",
        language="JP",
        what="id:text",
    ),
    Layout(
        "jvs",
        files=(r"/transcripts_utf8\.txt$",),
        patterns=(r"(?P<id>[^:]+):(?P<text>.*)",),
        audio=((".", "wav24kHz16bit/{id}.wav"), (".", "wav/{id}.wav")),
        speaker="{parent}",
        language="JP",
        what="id:text",
    ),
    Layout(
        "libritts",
        form="text",
        files=(r"/(?P<id>(?P<speaker>[^/_]+)_[^/]+)\.normalized\.txt$",),
        audio=((".", "{id}.wav"), (".", "{id}.flac")),
        language="EN",
        what="READER_CHAPTER_*.normalized.txt beside each recording",
    ),
    Layout(
        "vctk",
        form="text",
        files=(r"/txt/(?P<speaker>[^/]+)/(?P<id>[^/]+)\.txt$",),
        audio=(
            ("../..", "wav48_silence_trimmed/{speaker}/{id}_mic1.flac"),
            ("../..", "wav48_silence_trimmed/{speaker}/{id}_mic2.flac"),
            ("../..", "wav48/{speaker}/{id}.wav"),
            ("../..", "wav16/{speaker}/{id}.wav"),
            ("../..", "wav/{speaker}/{id}.wav"),
        ),
        language="EN",
        what="txt/SPEAKER/*.txt",
    ),
    Layout(
        "audiofolder",
        form="table",
        files=(r"/metadata\.(jsonl|csv|parquet)$",),
        what="a table with file_name and text",
    ),
    Layout(
        "huggingface",
        form="table",
        files=(
            r"-\d{5}-of-\d{5}\.parquet$",
            r"/(train|test|validation)[^/]*\.parquet$",
            r"/(train|test|validation)/[^/]*\.parquet$",
        ),
        named=False,
        what="a table with audio and text",
    ),
    Layout(
        "vits",
        files=(r"filelist[^/]*\.txt$", r"/[^/]*train[^/]*\.txt$"),
        named=False,
        patterns=(
            rf"(?P<path>{AUDIO})\|(?P<speaker>[^|\s]+)\|(?P<text>[^|]+)",
            rf"(?P<path>{AUDIO})\|(?P<text>[^|]+)\|(?P<speaker>[^|\s]+)",
            rf"(?P<path>{AUDIO})\|(?P<text>[^|]+)",
        ),
        audio=((".", "{path}"), *_ABOVE),
        what="path|speaker|text or path|text",
    ),
    Layout(
        "ljspeech",
        files=(r"/metadata\.csv$", r"/(train|val)\.csv$"),
        patterns=(r"(?P<id>[^|]+)\|(?P<written>[^|]*)(?:\|(?P<text>[^|]*))?",),
        audio=(
            (".", "wavs/{id}.wav"),
            (".", "{id}.wav"),
            (".", "wav/{id}.wav"),
            (".", "wavs/{id}.flac"),
            (".", "{id}.flac"),
            (".", "wavs/{id}"),
            (".", "{id}"),
        ),
        language="EN",
        what="id|text or id|text|text with numbers spelled out",
    ),
)
# lists of one form, told apart by where their recordings lie
OF_LISTS = (
    Layout(
        "sbv2",
        files=(r"/esd\.list$", r"\.list$"),
        audio=(*_NEAR[1:], _NEAR[0]),
        speaker="",
        what="path|speaker|language|text",
    ),
    Layout(
        "gpt_sovits",
        files=(r"\.list$",),
        audio=(*_NEAR[:1], *_ABOVE, *_MOVED),
        speaker="",
        what="path|speaker|language|text",
    ),
    Layout(
        "melotts",
        files=(r"/metadata\.list$", r"\.list$"),
        audio=(*_ABOVE, *_NEAR[:1]),
        speaker="",
        what="path|speaker|language|text",
    ),
)
BY_NAME = {layout.name: layout for layout in LAYOUTS + OF_LISTS}
ESD = BY_NAME["esd"]

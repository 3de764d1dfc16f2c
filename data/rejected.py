"""Why a line of a transcript cannot be used: the codes, and the error that carries one."""

from enum import StrEnum


class Reason(StrEnum):
    """Why a line was rejected.

    The values are the codes in rejects.jsonl and in the manifest's header.
    """

    # not UTF-8 or JSON, fewer than four fields, or a field is empty or not a text
    MALFORMED_LINE = "malformed_line"
    PATH_LEAVES_ROOT = "path_leaves_root"  # a relative path that leads out of data.audio_root
    DUPLICATE_ID = "duplicate_id"  # an earlier line has the same id
    DUPLICATE_AUDIO = "duplicate_audio"  # an earlier line has the same recording and text
    # an earlier line has the same recording with another text, speaker or language
    CONTRADICTION = "contradiction"
    UNKNOWN_LANGUAGE = "unknown_language"  # not in data.text.languages
    UNKNOWN_SPLIT = "unknown_split"  # not one of data.shards.manifest.SPLITS
    # nothing to say, as written or after normalising; punctuation says nothing
    EMPTY_TEXT = "empty_text"
    UNREAD = "unread"  # no rule reads more of its characters than data.max_unread_share allows
    TEXT_TOO_LONG = "text_too_long"  # more tokens than BERT reads at once
    UNKNOWN_SYMBOL = "unknown_symbol"  # the front end gave a phone that the symbol set lacks
    UNKNOWN_TONE = "unknown_tone"  # the front end gave a tone that the language lacks
    WORD2PH_MISMATCH = "word2ph_mismatch"  # phones, tones and word2ph do not fit together
    BERT_TOKEN_MISMATCH = "bert_token_mismatch"  # word2ph and BERT's tokens do not fit together
    MISSING_AUDIO = "missing_audio"  # there is no such file
    UNREADABLE_AUDIO = "unreadable_audio"  # no audio that can be decoded, or it may not be read
    TRUNCATED_AUDIO = "truncated_audio"  # the file holds less than its header promises, or more
    NOT_FINITE = "not_finite"  # NaN or infinite samples
    CHANNELS_CANCEL = "channels_cancel"  # the channels' mean is far quieter than they are
    SILENT = "silent"  # never louder than data.audio.recording.SILENCE_PEAK
    TOO_SHORT = "too_short"  # below data.min_seconds
    TOO_LONG = "too_long"  # above data.max_seconds
    CRASHED = "crashed"  # it ends the process that decodes or reads it, also alone in one
    TIMED_OUT = "timed_out"  # it is not decoded and read within data.line_timeout_s, also alone
    # what `data.quality.reject` names, see data.quality.gate
    CLIPPED = "clipped"
    NARROW_BAND = "narrow_band"
    NOISY = "noisy"
    MOSTLY_SILENCE = "mostly_silence"
    QUIET = "quiet"
    SPEECH_RATE = "speech_rate"
    NEAR_DUPLICATE = "near_duplicate"
    TOO_MANY_PHONES = "too_many_phones"  # more phones than frames: they cannot be aligned


class RejectedError(ValueError):
    """A line that cannot be used; `reason` is its code, the message says what was seen."""

    def __init__(self, reason: Reason, detail: str) -> None:
        # all arguments: exceptions are pickled on their way from a worker
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return self.detail

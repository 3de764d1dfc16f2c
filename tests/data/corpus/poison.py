"""Lines that kill the process that decodes or reads them; for workers of Ray to be set up with."""

import os
import signal
import time
from collections.abc import Callable

import numpy as np
import pyarrow as pa

import data.corpus.survey
import data.corpus.writer
from data.audio.recording import decode_and_measure, encode_flac
from data.config import DataConfig
from data.corpus.features import BertActor
from data.corpus.on_ray import limits
from data.corpus.on_ray.survey_actor import LineByLine
from data.text.english.front_end import EnglishFrontEnd

SECONDS_THAT_CRASH = 1.25  # of a recording
SECONDS_THAT_HANG = 1.75  # of a recording, in the second pass


def poison() -> None:
    """Let lines kill this process: what Ray calls in each of its own."""
    read = EnglishFrontEnd.__call__

    def reads(self: EnglishFrontEnd, text: str):
        if text.startswith("Whoever"):
            os.kill(os.getpid(), signal.SIGKILL)
        if text.startswith("Memory"):
            hoard(text)
        while text.startswith("For ever"):
            time.sleep(1)  # and not `pass`, which would take the other tests' CPU
        return read(self, text)

    def decodes(content: bytes, cfg: DataConfig, look: Callable):
        wav, measured = decode_and_measure(content, cfg, look)
        if len(wav) == SECONDS_THAT_CRASH * cfg.sampling_rate:
            os.kill(os.getpid(), signal.SIGSEGV)
        return wav, measured

    def leads(self: LineByLine, lines: pa.Table) -> pa.Table:
        if "Whoever leads this dies." in lines.column("text").to_pylist():
            os.kill(os.getpid(), signal.SIGKILL)
        return lead(self, lines)

    def features(self: BertActor, language: str, rows: pa.Table):
        if "BERT dies of it." in rows.column("text").to_pylist():
            os.kill(os.getpid(), signal.SIGSEGV)
        return compute(self, language, rows)

    def encodes(wav: np.ndarray, rate: int) -> bytes:
        while len(wav) == SECONDS_THAT_HANG * rate:
            time.sleep(1)
        return encode_flac(wav, rate)

    compute, BertActor._features = BertActor._features, features
    data.corpus.writer.encode_flac = encodes
    lead = LineByLine.__call__
    LineByLine.__call__ = leads
    limits.LINE_MEMORY = 256 << 20
    EnglishFrontEnd.__call__ = reads
    data.corpus.survey.decode_and_measure = decodes


def hoard(text: str) -> None:
    """Take memory for as long as there is some."""
    taken = []
    while True:
        taken.append(f"{text}{len(taken)}" * (1 << 22))

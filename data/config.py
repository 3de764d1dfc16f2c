"""Configuration of the data: where recordings and shards lie, and what is computed from them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

from data.names import visible_name
from data.settings.asr import AsrConfig
from data.settings.declared import (
    Amount,
    Count,
    Hertz,
    Line,
    Range,
    Seed,
    Settings,
    Share,
    Text,
)
from data.settings.plan import PlanConfig
from data.settings.quality import QualityConfig
from data.text.languages import LANGUAGES, PUBLISHED, Language, code_of, find


@dataclass(frozen=True)
class BertSource(Settings, section="data.bert.others"):
    """The BERT model of a language beyond the published ones.

    Attributes:
        path: as `data.bert.zh`.
        revision: hub revision of `path`.
    """

    path: Text
    revision: Text | None = None


@dataclass(frozen=True)
class BertConfig(Settings, section="data.bert"):
    """One BERT model per language: a folder, a name on the hub, `random` or `zeros`.

    `random` is a tiny model that is made here, for tests; `zeros` is no BERT: features that are 0.

    Attributes:
        zh: model for Chinese text.
        jp: model for Japanese text.
        en: model for English text.
        revision_zh: hub revision of `zh`; likewise the two below.
        revision_jp: hub revision of `jp`.
        revision_en: hub revision of `en`.
        others: code -> `path` and `revision` of the model of each further language of
            data/text/languages.py; the networks then have a place for these languages too.
        random_width: width of the features of `random` and `zeros`.
        inactive: what the networks are given for the languages that an utterance is not in:
            `zeros`, or `noise` of normal distribution as in the reference trainer, drawn on the
            device from the step's random numbers.
    """

    zh: Text = "hfl/chinese-roberta-wwm-ext-large"
    jp: Text = "ku-nlp/deberta-v2-large-japanese-char-wwm"
    en: Text = "microsoft/deberta-v3-large"
    revision_zh: Text | None = None
    revision_jp: Text | None = None
    revision_en: Text | None = None
    others: dict[str, BertSource] = field(default_factory=dict, hash=False)
    random_width: Count = 32
    inactive: Literal["zeros", "noise"] = "zeros"

    def problems(self) -> Iterator[str]:
        """Yield further models of languages that there are not, or that have a key of their own."""
        for code in self.others:
            if code not in LANGUAGES:
                yield (
                    f"data.bert.others.{code}: no such language; declare it in "
                    f"data/text/languages.py, or use one of {', '.join(LANGUAGES)}"
                )
            elif LANGUAGES[code] in PUBLISHED:
                yield f"data.bert.others.{code}: set data.bert.{code.lower()} instead"

    def key(self, language: str) -> str:
        """Return the configuration key of a language's model."""
        own = find(language)
        return f"data.bert.{own.key}" if own in PUBLISHED else f"data.bert.others.{own.code}"

    def model(self, language: str) -> tuple[str, str | None]:
        """Return the model and the revision of a language.

        Raises:
            ValueError: an unknown language, or one without a model; names the key.
        """
        own = find(language)
        if own in PUBLISHED:
            return getattr(self, own.key), getattr(self, f"revision_{own.key}")
        if language not in self.others:
            raise ValueError(f"{self.key(language)} is not set: give the language's BERT model")
        return self.others[language].path, self.others[language].revision

    def languages(self) -> tuple[Language, ...]:
        """Return the languages that the networks have a place for, in the order of their numbers.

        These are the published ones, and those of the table up to the last one that has a model
        here: a language more in the table changes no network that does not ask for it.
        """
        table = list(LANGUAGES.values())
        places = [table.index(own) for own in PUBLISHED]
        places += [table.index(LANGUAGES[code]) for code in self.others]
        return tuple(table[: max(places) + 1])

    def with_paths(self, change: Callable[[str], str]) -> "BertConfig":
        """Return the same with every model's path changed."""
        others = {
            code: replace(source, path=change(source.path)) for code, source in self.others.items()
        }
        published = {own.key: change(getattr(self, own.key)) for own in PUBLISHED}
        return replace(self, others=others, **published)  # type: ignore[arg-type]


@dataclass(frozen=True)
class TextConfig(Settings, section="data.text"):
    """How texts are read (docs/text.md).

    Attributes:
        normaliser: `ours` reads numbers, units, signs, letters and long vowels as they are spoken;
            `reference` reads as the front ends that published models were trained with.
        readings: your own words: a YAML file or URI of language: {word: reading}, in pinyin, kana,
            ARPAbet or phones.
        words: such a table itself, as the config.yaml of a run keeps it.
    """

    normaliser: Literal["ours", "reference"] = "ours"
    readings: Text | None = None
    words: dict[str, dict[str, str]] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class DataConfig(Settings, section="data"):
    """Recordings, shards and features.

    Attributes:
        transcript: file, URI or glob of lines `path|speaker|language|text`; a name that ends in
            .jsonl or .parquet is a table of these, with optional columns `id` and `split`. Or the
            folder of a corpus that `layout` knows.
        layout: what the transcript is a list of (docs/data-format.md): a public corpus' files, or
            another trainer's; `auto` tells by names and lines.
        language: language of lines whose transcript names none, in place of its layout's.
        audio_root: folder or URI that relative paths of recordings start from; none: their
            transcript's folder.
        shards: folder or URI of the prepared shards and their manifest.
        speakers: name -> row of the speaker table, for those whose rows are given, such as the
            speakers of published weights; gaps may be left. All others get the next free rows, by
            name, and keep them when the corpus grows.
        sampling_rate: sampling rate of the shards' audio and of the voice, Hz.
        filter_length: points of the STFT.
        hop_length: samples between two frames.
        win_length: samples of the STFT's window.
        n_mel_channels: bands of the mel spectrogram.
        mel_fmin: lower edge of the mel bank, Hz.
        mel_fmax: upper edge, Hz; none: half the sampling rate.
        add_blank: whether a blank stands between phones and at both ends, T = 2 P + 1.
        spectrogram_on: where linear spectrograms are computed: on the worker's `device`, by the
            data `pipeline` that feeds it, or once, when the `shards` are prepared, which then hold
            them; `auto`: on the device where it is a GPU, else by the pipeline, as the run's
            config.yaml then says.
        bert: the BERT models.
        text: how texts are read.
        asr: how job.transcribe cuts and recognises.
        quality: what recordings are measured by.
        max_unread_share: a line is rejected when no rule reads more than this share of its
            characters, spaces aside.
        japanese_engine: `plus` (pyopenjtalk-plus) or `strict` (pyopenjtalk with Open JTalk's own
            dictionary).
        min_seconds: shorter recordings are rejected, as they are after trimming.
        max_seconds: longer recordings are rejected, as they are after trimming.
        trim_db: ends of a recording that are this much quieter than its loudest 20 ms are cut off;
            none: nothing is cut off.
        trim_margin: seconds kept before and behind what is not quiet.
        peak: recordings are scaled to this peak.
        loudness: recordings are scaled to this loudness in LUFS (ITU-R BS.1770, EBU R128), -23 for
            broadcasts; their peak stays below full scale. With neither, their level stays.
        split_seed: seed of the hash of an utterance's id that decides whether it is held back for
            validation.
        validation_per_speaker: smallest number of utterances per speaker held back for validation.
        validation_share: share of a speaker's utterances held back for validation.
        max_reject_share: preparation stops when more than this share of the lines is rejected.
        line_timeout_s: a line that takes longer to be decoded and read is rejected; it is tried
            three times.
        rows_per_shard: utterances per shard file.
        bad_rows: what happens to a row of the shards that is missing or damaged: `refuse` ends the
            run with its state saved, `replace` takes the nearest intact utterance of the manifest,
            which is about as long.
        plan: how an epoch is cut into micro-batches.
        prefetch_steps: global steps whose micro-batches are loaded ahead of the training; bounds
            the memory.
        loaders: largest number of processes, with one logical CPU each, that read, decode and
            collate; `auto`: what the workers take, of the CPUs that the cluster has beside them, as
            the run's configuration then tells.
    """

    transcript: Line = ""
    layout: Literal[
        "auto",
        "esd",
        "ljspeech",
        "vctk",
        "libritts",
        "aishell3",
        "jsut",
        "jvs",
        "common_voice",
        "gpt_sovits",
        "sbv2",
        "melotts",
        "vits",
        "audiofolder",
        "huggingface",
    ] = "auto"
    language: Text | None = None
    audio_root: Text | None = None
    shards: Text = "shards"
    speakers: dict[str, Annotated[int, Range(0)]] = field(default_factory=dict, hash=False)
    sampling_rate: Hertz = 44100
    filter_length: Annotated[int, Range(2)] = 2048
    hop_length: Count = 512
    win_length: Annotated[int, Range(2)] = 2048
    n_mel_channels: Count = 128
    mel_fmin: Amount = 0.0
    mel_fmax: Annotated[float, Range(above=0)] | None = None
    add_blank: bool = True
    spectrogram_on: Literal["auto", "shards", "pipeline", "device"] = "auto"
    bert: BertConfig = field(default_factory=BertConfig)
    text: TextConfig = field(default_factory=TextConfig)
    asr: AsrConfig = field(default_factory=AsrConfig)
    quality: QualityConfig = field(default_factory=QualityConfig)
    max_unread_share: Share = 0.3
    japanese_engine: Literal["plus", "strict"] = "plus"
    min_seconds: Amount = 0.4
    max_seconds: Annotated[float, Range(above=0)] = 20.0
    trim_db: Annotated[float, Range(above=0)] | None = None
    trim_margin: Amount = 0.1
    peak: Annotated[float, Range(above=0, high=1)] | None = None
    loudness: Annotated[float, Range(-70, 0)] | None = None
    split_seed: Seed = 0
    validation_per_speaker: Annotated[int, Range(0)] = 1
    validation_share: Annotated[float, Range(0, below=1)] = 0.01
    max_reject_share: Share = 0.05
    line_timeout_s: Annotated[float, Range(1, 3600)] = 10.0
    rows_per_shard: Count = 256
    bad_rows: Literal["refuse", "replace"] = "refuse"
    plan: PlanConfig = field(default_factory=PlanConfig)
    prefetch_steps: Count = 8
    loaders: Count | Literal["auto"] = "auto"

    @property
    def loader_count(self) -> int:
        """Number of loaders; the fewest while `auto` is not settled for a cluster."""
        return 1 if self.loaders == "auto" else self.loaders

    def problems(self) -> Iterator[str]:
        """Yield lengths, frequencies, seconds and rows that do not fit each other."""
        if self.language is not None and code_of(self.language) is None:
            yield f"data.language is {self.language!r}: give one of {', '.join(LANGUAGES)}"
        owners: dict[int, str] = {}
        for name, row in self.speakers.items():
            if (seen := visible_name(name)) != name:
                yield (
                    f"data.speakers.{name} has a name that no list has, as they are read composed "
                    f"and without invisible characters: write {seen or 'another one'}"
                )
            if row in owners:
                yield (
                    f"data.speakers gives {owners[row]} and {name} the row {row}: give each a row "
                    "of their own"
                )
            owners[row] = name
        if self.win_length > self.filter_length:
            yield (
                f"data.win_length is {self.win_length}: it may not be longer than "
                f"data.filter_length {self.filter_length}"
            )
        if self.hop_length > self.win_length:
            yield (
                f"data.hop_length is {self.hop_length}: it may not be longer than data.win_length "
                f"{self.win_length}, or samples lie in no frame"
            )
        if self.n_mel_channels > self.filter_length // 2 + 1:
            yield (
                f"data.n_mel_channels is {self.n_mel_channels}: data.filter_length "
                f"{self.filter_length} gives only {self.filter_length // 2 + 1} bins for them"
            )
        yield from self._problems_of_the_mel_bank()
        if self.min_seconds >= self.max_seconds:
            yield (
                f"data.min_seconds is {self.min_seconds:g}: it must be less than "
                f"data.max_seconds {self.max_seconds:g}"
            )
        if self.peak is not None and self.loudness is not None:
            yield (
                f"data.peak is {self.peak:g} and data.loudness is {self.loudness:g}: each decides "
                "the level of a recording; set one of them"
            )

    def _problems_of_the_mel_bank(self) -> Iterator[str]:
        highest = self.sampling_rate / 2
        top = highest if self.mel_fmax is None else self.mel_fmax
        if top > highest:
            yield (
                f"data.mel_fmax is {top:g}: it may not be above half of data.sampling_rate, "
                f"{highest:g}"
            )
        if self.mel_fmin >= top:
            yield (
                f"data.mel_fmin is {self.mel_fmin:g}: it must be below data.mel_fmax, which is "
                f"{top:g}"
            )

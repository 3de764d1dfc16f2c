"""Preparation: recordings and a transcript become shards and a manifest, with Ray Data, in two passes.

1. Survey: every line's recording is read and hashed; what no shard holds yet is decoded and its text is turned into
   phones. Only text and lengths come back, so that the ledger can refuse a bad transcript before the costly part.
2. Features: the new rows, sorted by length and cut into shards, run through BERT (an actor pool, on GPUs where there
   are any) and a writer that decodes the recording again, encodes it and writes the shard.

Two passes, because the order of length must be known before shards are written: decoding twice costs little (over
1000 x real time), while sorting finished rows would send all audio through the object store. So it holds no audio,
and features only of the shards under way.

Shards are immutable and rows are addressed by content, so preparing again computes what changed, and a run that was
interrupted goes on with the shards it had written. The manifest is replaced when all shards are there; shards that
it no longer names are removed last.
"""

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from functools import partial

import numpy as np
import pyarrow as pa
import ray
import ray.data

from data.audio import encode_flac, read_audio
from data.bert import BertFeatures
from data.config import DataConfig
from data.ledger import Ledger, RejectedError
from data.manifest import (
    COLUMNS,
    SHARD_COLUMNS,
    Manifest,
    known_speakers,
    number_speakers,
    split_of,
    write_manifest,
)
from data.recipe import Recipe, bert_features, make_recipe
from data.shards import list_shards, read_index, remove_unreferenced, write_shard
from data.survey import LINE, SURVEYED, HeldRow, Surveyor, decode, judge, line_rows
from data.text.front_end import Phonemes
from data.transcript import Transcript, read_transcript

LINES_PER_BLOCK = 64
TEXTS_PER_BATCH = 16
TASK_CPUS = 0.5  # less than one: a machine with a single logical CPU must hold a BERT actor and a writer

_PHONEMES = [field.name for field in fields(Phonemes)]
_KEPT = pa.schema(
    [SHARD_COLUMNS.field(name) for name in ("id", "key", "speaker", "language", "text", "samples", "frames")]
    + [LINE.field("uri")]
)
_WRITTEN = pa.schema([("key", pa.string()), ("shard", pa.string()), ("row", pa.int32()), ("problem", pa.string())])


def prepare(cfg: DataConfig) -> Manifest:
    """Prepare a corpus, or bring one up to date. Ray must have been started by the caller.

    Args:
        cfg: `transcript` and `shards` say where from and where to.

    Returns:
        The manifest that now lies at `cfg.shards`; its digest depends on the input and the settings alone.

    Raises:
        ValueError: there is no transcript, too many lines were rejected, or a recording changed meanwhile.
    """
    transcript = read_transcript(cfg.transcript)
    speakers = known_speakers(cfg.shards)
    recipe = make_recipe(cfg, {line.language for line in transcript.lines})
    held = _held_rows(cfg.shards)
    surveyed = _survey(cfg, transcript, recipe, held)
    ledger, rows = judge(cfg, transcript, surveyed, held)
    print(ledger.table(), flush=True)
    ledger.save(f"{cfg.shards}/rejects.jsonl")
    ledger.check(cfg.max_reject_share)
    places = {key: (row.shard, row.row) for key, row in held.items()}
    places |= _compute(cfg, recipe, surveyed, [row for row in rows if row["key"] not in held])
    header = _header(cfg, recipe, ledger, number_speakers({row["speaker"] for row in rows}, speakers))
    manifest = write_manifest(cfg.shards, header, _manifest_table(cfg, rows, places))
    remove_unreferenced(cfg.shards, set(manifest.column("shard")))
    return manifest


def _held_rows(uri: str) -> dict[str, HeldRow]:
    """Rows of all shards by key: those that the manifest names, and those of a run that was interrupted."""
    shards = list_shards(uri)
    with ThreadPoolExecutor(16) as pool:  # a footer each: on an object store the time is all waiting
        indices = pool.map(lambda shard: read_index(uri, shard), shards)
        return {
            entry["key"]: HeldRow(shard, number, entry["samples"], entry["phones"])
            for shard, index in zip(shards, indices, strict=True)
            for number, entry in enumerate(index)
        }


def _survey(cfg: DataConfig, transcript: Transcript, recipe: Recipe, held: dict[str, HeldRow]) -> pa.Table:
    """First pass: rows of SURVEYED of all usable lines."""
    if not transcript.lines:
        return SURVEYED.empty_table()
    blocks = [_table(rows, LINE) for rows in _chunks(line_rows(transcript), LINES_PER_BLOCK)]
    dataset = ray.data.from_arrow(blocks).map_batches(
        Surveyor,
        fn_constructor_args=(cfg, recipe, frozenset(held)),
        batch_size=None,
        batch_format="pyarrow",
        num_cpus=TASK_CPUS,
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=min(len(blocks), max(1, int(_resource("CPU"))))),
    )
    return _run(dataset)


def _compute(cfg: DataConfig, recipe: Recipe, surveyed: pa.Table, rows: list[dict]) -> dict[str, tuple[str, int]]:
    """Second pass: compute and write rows that no shard holds, a block a shard; key -> (shard, row)."""
    if not rows:
        return {}
    blocks = [_shard_block(surveyed, chunk) for chunk in _chunks(rows, cfg.rows_per_shard)]
    if on_gpu := _resource("GPU") >= 1:
        cpus, actors = TASK_CPUS, _resource("GPU")
    else:  # few actors with several threads: a large model takes over 1 GB a language and actor
        cpus = min(4, _resource("CPU") // 2) or TASK_CPUS
        actors = max(1, _resource("CPU") // (2 * cpus))
    dataset = (
        ray.data.from_arrow(blocks)
        .map_batches(
            _BertActor,
            fn_constructor_args=(cfg, "cuda" if on_gpu else "cpu"),
            batch_size=None,
            batch_format="pyarrow",
            num_cpus=cpus,
            num_gpus=int(on_gpu),
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=min(len(blocks), int(actors))),
        )
        .map_batches(
            partial(_write, cfg=cfg, recipe=recipe), batch_size=None, batch_format="pyarrow", num_cpus=TASK_CPUS
        )
    )
    written = _run(dataset).to_pylist()
    problems = [row["problem"] for row in written if row["problem"]]
    if problems:
        raise ValueError(
            f"{len(problems)} recordings changed while they were prepared, the first: {problems[0]}. "
            "Run python -m job.prepare again: what is done is kept"
        )
    return {row["key"]: (row["shard"], row["row"]) for row in written}


def _shard_block(surveyed: pa.Table, rows: list[dict]) -> pa.Table:
    """What the second pass needs of a shard's rows: _KEPT and the fields of Phonemes."""
    block = _table(rows, _KEPT)
    phonemes = surveyed.select(_PHONEMES).take([row["surveyed"] for row in rows])
    for field, column in zip(phonemes.schema, phonemes.columns, strict=True):
        block = block.append_column(field, column)
    return block


class _BertActor:
    """Features of a shard's rows. Models are loaded when their language first comes."""

    def __init__(self, cfg: DataConfig, device: str) -> None:
        self.cfg = cfg
        self.device = device
        self.models: dict[str, BertFeatures] = {}

    def __call__(self, rows: pa.Table) -> pa.Table:
        """Rows with `bert` and `bert_width`, from those of _shard_block."""
        languages = rows.column("language").to_pylist()
        features: dict[int, np.ndarray] = {}
        for language in sorted(set(languages)):
            members = [i for i, other in enumerate(languages) if other == language]
            for batch in _chunks(members, TEXTS_PER_BATCH):
                features |= zip(batch, self._features(language, rows.take(batch)), strict=True)
        arrays = [features[i] for i in range(len(languages))]
        return rows.append_column("bert", pa.array([array.tobytes() for array in arrays], pa.binary())).append_column(
            "bert_width", pa.array([array.shape[1] for array in arrays], pa.int32())
        )

    def _features(self, language: str, rows: pa.Table) -> list[np.ndarray]:
        """Arrays float16 [N, width] of rows of one language."""
        if language not in self.models:
            self.models[language] = bert_features(self.cfg, language, self.device)
        return self.models[language]([Phonemes(**row) for row in rows.select(_PHONEMES).to_pylist()])


def _write(rows: pa.Table, cfg: DataConfig, recipe: Recipe) -> pa.Table:
    """Decode and encode the recordings of a shard, and write it; rows of _WRITTEN."""
    finished, places = [], []
    for row in rows.to_pylist():
        try:
            audio = read_audio(row["uri"])
        except RejectedError as error:
            places.append({"key": row["key"], "problem": error.detail})
            continue
        if recipe.key(row["id"], row["text"], row["language"], row["speaker"], audio) != row["key"]:
            places.append({"key": row["key"], "problem": row["uri"]})
            continue
        finished.append(row | {"audio": encode_flac(decode(audio, cfg), cfg.sampling_rate)})
    if finished:
        shard = write_shard(cfg.shards, finished)
        places += [{"key": row["key"], "shard": shard, "row": number} for number, row in enumerate(finished)]
    return pa.Table.from_pylist(places, schema=_WRITTEN)


def _header(cfg: DataConfig, recipe: Recipe, ledger: Ledger, speakers: dict[str, int]) -> dict:
    return {
        "sampling_rate": cfg.sampling_rate,
        "filter_length": cfg.filter_length,
        "hop_length": cfg.hop_length,
        "win_length": cfg.win_length,
        "add_blank": cfg.add_blank,
        "bert_width": recipe.bert_width,
        "front_ends": recipe.front_ends,
        "berts": recipe.berts,
        "languages": sorted({kept.language for kept in ledger.kept}),
        "speakers": speakers,
        "counts": ledger.counts(),
        "hours": round(ledger.hours, 6),
    }


def _manifest_table(cfg: DataConfig, rows: list[dict], places: dict[str, tuple[str, int]]) -> pa.Table:
    splits = split_of({row["id"]: row["speaker"] for row in rows}, cfg.validation_per_speaker, cfg.validation_share)
    entries = []
    for row in rows:
        shard, number = places[row["key"]]
        place = {"shard": shard, "row": number}
        entries.append({**row, **place, "split": splits[row["id"]], "phones": row["phone_count"]})
    return _table(entries, COLUMNS)


def _chunks(items: list, size: int) -> Iterator[list]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _table(rows: list[dict], schema: pa.Schema) -> pa.Table:
    """Rows as a table; of each row, the columns of the schema."""
    return pa.Table.from_pylist([{name: row[name] for name in schema.names} for row in rows], schema=schema)


def _resource(name: str) -> float:
    return ray.cluster_resources().get(name, 0)


def _run(dataset: ray.data.Dataset) -> pa.Table:
    """Run a dataset and take its rows; with progress bars on a terminal, quietly elsewhere."""
    dataset.context.enable_progress_bars = dataset.context.print_on_execution_start = sys.stderr.isatty()
    return pa.concat_tables(dataset.iter_batches(batch_size=None, batch_format="pyarrow")).combine_chunks()

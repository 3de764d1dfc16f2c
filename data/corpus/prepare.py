"""Preparation: recordings and a transcript become shards and a manifest, with Ray Data.

It takes two passes:

1. Survey: every line's recording is read and hashed; what no shard holds yet is decoded and its
   text is turned into phones. Only text and lengths come back, so that the ledger can refuse a bad
   transcript before the costly part.
2. Features: the new rows, sorted by length and cut into shards, run through BERT (an actor pool, on
   GPUs if there are any) and a writer that decodes the recording again, encodes it and writes the
   shard.

Two passes, because the order of length must be known before shards are written: decoding twice
costs little (over 1000 x real time), while sorting finished rows would send all audio through the
object store. So it holds no audio, and features only of the shards in progress.

Shards are immutable and rows are addressed by content, so preparing again computes what changed,
and an interrupted run continues with the shards it had written. The manifest is replaced when all
shards are there; shards that it no longer names are removed last.
"""

import contextlib
import logging
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pyarrow as pa
import ray
import ray.data

from data.config import DataConfig
from data.corpus.coverage import lacking
from data.corpus.features import BertActor, shard_block
from data.corpus.ledger import Ledger
from data.corpus.prepared import OF_FILES, changes, prepared_with
from data.corpus.progress import Progress
from data.corpus.recipe import Recipe, make_recipe
from data.corpus.report import save_report
from data.corpus.survey import LINE, SURVEYED, HeldRow, Surveyor, count_phones, judge, line_rows
from data.corpus.transcript import Transcript, read_transcript
from data.corpus.writer import write_rows
from data.files import below
from data.gpu import gpu_trouble
from data.shards.manifest import (
    COLUMNS,
    SCHEMA_VERSION,
    Manifest,
    earlier_header,
    known_speakers,
    number_speakers,
    split_of,
    write_manifest,
)
from data.shards.shard import list_shards, read_index, remove_unreferenced

LINES_PER_BLOCK = 64
# less than one: a machine with a single logical CPU must hold a BERT actor and a writer
TASK_CPUS = 0.5
FOOTERS_AT_A_TIME = 16
ROOM_WITHIN_S = 5.0  # a cluster that has what is asked for gives it by then


class PreparationError(ValueError):
    """Preparation cannot continue, whatever the lines say; what was written is kept."""


def prepare(cfg: DataConfig, transcript: Transcript | None = None) -> Manifest:
    """Prepare a corpus, or bring one up to date. Ray must have been started by the caller.

    Args:
        cfg: names the transcript to read and the folder or URI of shards to write.
        transcript: the transcript, if it has been read.

    Returns:
        The manifest that now lies at `cfg.shards`; its digest depends on the input and the settings
        alone.

    Raises:
        ValueError: there is no transcript, settings contradict each other, too many lines were
            rejected, a store does not answer or is full, or a recording changed meanwhile.
        OSError: the transcript cannot be read, or the shards' folder cannot be used.
    """
    if transcript is None:
        transcript = read_transcript(cfg.transcript, cfg.audio_root, cfg.max_reject_share)
    before = earlier_header(cfg.shards)
    known = known_speakers(cfg.shards)
    recipe = make_recipe(cfg, {line.language for line in transcript.lines})
    held = _held_rows(cfg.shards)

    surveyed = _survey(cfg, transcript, recipe, held)
    ledger, rows = judge(cfg, transcript, surveyed, held)
    splits = _splits(cfg, rows)
    warnings = _lacking(rows, splits)
    # before anything is refused: the user reads here which lines to fix
    print(ledger.table(), flush=True)
    for warning in warnings:
        print(f"warning: {warning}", flush=True)
    ledger.save(below(cfg.shards, "rejects.jsonl"))
    ledger.save_unread(below(cfg.shards, "unread.jsonl"))
    phones = count_phones(rows, surveyed, held)
    save_report(below(cfg.shards, "report.html"), ledger, phones, warnings)
    ledger.check(cfg.max_reject_share)
    check_training_split(transcript, rows, splits)

    new = [row for row in rows if row["key"] not in held]
    if before and before["schema_version"] == SCHEMA_VERSION:
        _tell_changes(cfg, before, len(new), len(rows))
    places = {key: (row.shard, row.row) for key, row in held.items()}
    places |= _compute(cfg, recipe, surveyed, new)

    speakers = number_speakers({row["speaker"] for row in rows}, known)
    header = _header(cfg, recipe, ledger, speakers)
    header["prepared"] = prepared_with(cfg, transcript, header["languages"])
    # new shards are there already and old ones go last: a manifest never names a missing shard
    manifest = write_manifest(cfg.shards, header, _manifest_table(rows, splits, places))
    remove_unreferenced(cfg.shards, set(manifest.words("shard")))
    return manifest


def check_training_split(
    transcript: Transcript, rows: list[dict], splits: Mapping[str, str]
) -> None:
    """Refuse a transcript that holds all its lines back.

    Raises:
        PreparationError: names the first line.
    """
    if "train" in splits.values():
        return
    first = min((row["line"] for row in rows), default=0)
    line = transcript.lines[first]
    raise PreparationError(
        f"{line.source}:{line.number}: this and all other lines are of the split validation "
        f"({len(rows)} in all), so that nothing is left to train on: say train in some, or leave "
        "`split` out; a corpus for job.evaluate alone is one of the split train (--split train)"
    )


def _splits(cfg: DataConfig, rows: list[dict]) -> dict[str, str]:
    """Return utterance -> one of SPLITS."""
    return split_of(
        {row["id"]: row["speaker"] for row in rows},
        per_speaker=cfg.validation_per_speaker,
        share=cfg.validation_share,
        seed=cfg.split_seed,
        given={row["id"]: row["split"] for row in rows if row["split"]},
    )


def _lacking(rows: list[dict], splits: Mapping[str, str]) -> list[str]:
    """Return what to warn of in the splits."""
    return lacking(
        [splits[row["id"]] for row in rows],
        [row["speaker"] for row in rows],
        [row["language"] for row in rows],
    )


def _tell_changes(cfg: DataConfig, before: Mapping[str, Any], new: int, rows: int) -> None:
    """Print what differs from the preparation before, and what is computed because of it."""
    for change in changes(cfg, before, with_files=True):
        only_new = " (in new shards alone)" if change.key in OF_FILES else ""
        print(f"data.{change.key} was {change.prepared}, is {change.configured}{only_new}")
    print(f"{new} of {rows} rows are computed, the others are there already", flush=True)


def _held_rows(uri: str) -> dict[str, HeldRow]:
    """Return rows of all shards by key: also those that an interrupted run wrote."""
    shards = list_shards(uri)
    # one footer each: on an object store the time is all waiting
    with ThreadPoolExecutor(FOOTERS_AT_A_TIME) as pool:
        indices = pool.map(lambda shard: read_index(uri, shard), shards)
        return {
            entry["key"]: HeldRow(shard, number, entry["samples"], entry["phones"])
            for shard, index in zip(shards, indices, strict=True)
            for number, entry in enumerate(index)
        }


def _survey(
    cfg: DataConfig, transcript: Transcript, recipe: Recipe, held: dict[str, HeldRow]
) -> pa.Table:
    """Run the first pass; return rows of SURVEYED of all usable lines."""
    if not transcript.lines:
        return SURVEYED.empty_table()
    blocks = [_table(rows, LINE) for rows in _chunks(line_rows(transcript), LINES_PER_BLOCK)]
    actors = min(len(blocks), max(1, int(_resource("CPU"))))
    dataset = _dataset(blocks).map_batches(
        Surveyor,
        fn_constructor_args=(cfg, recipe, frozenset(held)),
        batch_size=None,
        batch_format="pyarrow",
        num_cpus=TASK_CPUS,
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=actors),
    )
    return _run(dataset, "survey", len(transcript.lines))


def _compute(
    cfg: DataConfig, recipe: Recipe, surveyed: pa.Table, rows: list[dict]
) -> dict[str, tuple[str, int]]:
    """Run the second pass over rows that no shard holds, one block per shard.

    Returns:
        Key -> shard, and row of the shard.
    """
    if not rows:
        return {}
    blocks = [shard_block(surveyed, chunk) for chunk in _chunks(rows, cfg.rows_per_shard)]
    cpus, gpus, actors = _bert_resources()
    dataset = (
        _dataset(blocks)
        .map_batches(
            BertActor,
            fn_constructor_args=(cfg, "cuda" if gpus else "cpu"),
            # a block, which is a shard; Ray Data wants a number where there are GPUs
            batch_size=cfg.rows_per_shard,
            batch_format="pyarrow",
            num_cpus=cpus,
            num_gpus=gpus,
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=min(len(blocks), actors)),
        )
        .map_batches(
            partial(write_rows, cfg=cfg, recipe=recipe),
            batch_size=None,
            batch_format="pyarrow",
            num_cpus=TASK_CPUS,
        )
    )
    written = _run(dataset, "features", len(rows)).to_pylist()
    return {row["key"]: (row["shard"], row["row"]) for row in written}


def _bert_resources() -> tuple[float, int, int]:
    """Return CPUs and GPUs per BERT actor, and the number of actors."""
    gpus = _resource("GPU")
    if gpus >= 1:
        wait_for_room("GPU", 1)
        # what is prepared is the same, so a GPU that is of no use is no reason to refuse
        trouble = ray.get(ray.remote(gpu_trouble).options(num_cpus=0, num_gpus=1).remote())
        if not trouble:
            return TASK_CPUS, 1, int(gpus)
        print(f"warning: BERT runs on the CPU. Ray has GPUs, but {trouble}", flush=True)
    # few actors with several threads: a large model takes over 1 GB per language and actor
    cpus = min(4, _resource("CPU") // 2) or TASK_CPUS
    return cpus, 0, int(max(1, _resource("CPU") // (2 * cpus)))


def _header(cfg: DataConfig, recipe: Recipe, ledger: Ledger, speakers: dict[str, int]) -> dict:
    return {
        "sampling_rate": cfg.sampling_rate,
        "filter_length": cfg.filter_length,
        "hop_length": cfg.hop_length,
        "win_length": cfg.win_length,
        "add_blank": cfg.add_blank,
        "spectrograms": cfg.spectrogram_on == "shards",
        "bert_width": recipe.bert_width,
        "front_ends": recipe.front_ends,
        "berts": recipe.berts,
        "languages": sorted({kept.language for kept in ledger.kept}),
        "speakers": speakers,
        "counts": ledger.counts(),
        "hours": round(ledger.hours, 6),
    }


def _manifest_table(
    rows: list[dict], splits: Mapping[str, str], places: dict[str, tuple[str, int]]
) -> pa.Table:
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
    """Return rows as a table that holds the columns of the schema."""
    selected = [{name: row[name] for name in schema.names} for row in rows]
    return pa.Table.from_pylist(selected, schema=schema)


def _resource(name: str) -> float:
    return ray.cluster_resources().get(name, 0)


def wait_for_room(resource: str, amount: float) -> None:
    """Wait until the cluster has something free; say so if other jobs hold it for long.

    Args:
        resource: CPU or GPU.
        amount: how much of it one process will take.
    """
    full = ray.available_resources().get(resource, 0) < amount
    wanted = {"num_cpus": 0, "num_gpus": 0} | {f"num_{resource.lower()}s": amount}
    asked = ray.remote(_nothing).options(**wanted).remote()
    _, waiting = ray.wait([asked], timeout=ROOM_WITHIN_S)
    if waiting and full:
        there = _resource(resource)
        held = f"other jobs hold those of this cluster, {there:g}" if there else "none is up yet"
        print(f"waits for a {resource}: {held} (`ray status` tells more)", flush=True)
    ray.get(asked)


def _nothing() -> None:
    """Take room, and be done."""


def _dataset(blocks: list[pa.Table]) -> ray.data.Dataset:
    """Return a dataset of tables, once there is a CPU: a task of Ray's looks at each of them."""
    wait_for_room("CPU", 1)
    return ray.data.from_arrow(blocks)


def _run(dataset: ray.data.Dataset, what: str, rows: int) -> pa.Table:
    """Run a dataset and return its rows.

    Args:
        dataset: yields rows that have a column `problem`.
        what: name of the work, for the progress.
        rows: number of rows that it will yield.

    Raises:
        PreparationError: the first `problem` among the rows.
    """
    _quieten(dataset)
    taken = []
    with contextlib.closing(Progress(what, rows)) as progress:
        blocks: Iterator[pa.Table] = iter(
            dataset.iter_batches(batch_size=None, batch_format="pyarrow")
        )
        for block in blocks:
            problems = block.column("problem").drop_null()
            if len(problems):
                raise PreparationError(problems[0].as_py())
            taken.append(block)
            progress.advance(block.num_rows)
    return pa.concat_tables(taken).combine_chunks()


def _quieten(dataset: ray.data.Dataset) -> None:
    """Switch off Ray Data's own progress, which `Progress` shows more briefly."""
    dataset.context.enable_progress_bars = False
    dataset.context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    # it warns that there are no bars
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)

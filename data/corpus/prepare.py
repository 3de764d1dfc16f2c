"""Preparation: recordings and a transcript become shards and a manifest, with Ray Data.

It takes two passes:

1. Survey: every line's recording is read, hashed and decoded, and its text turned into phones.
   Only text and lengths come back, so that the ledger can refuse a bad transcript before the costly
   part. What is found is kept in parts (data.corpus.tables.surveyed): the next run takes it over
   where a recording has not changed, without reading it.
2. Features: the new rows, sorted by length and cut into shards, run through BERT (an actor pool, on
   GPUs if there are any) and a writer that decodes the recording again, encodes it and writes the
   shard.

A line that ends a process of either pass is found and rejected (data.corpus.on_ray).

Two passes, because the order of length must be known before shards are written: decoding twice
costs little (over 1000 x real time), while sorting finished rows would send all audio through the
object store. So it holds no audio, and features only of the shards in progress.

Shards are immutable and rows are addressed by content, so preparing again computes what changed,
and an interrupted run continues with the shards it had written. The manifest is replaced when all
shards are there; shards that it no longer names are removed last.

The driver holds few bytes per line: tables lie in temporary files (data.corpus.tables), of which
a source of Ray Data's reads one block after the other.
"""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
import ray.data

from data.config import DataConfig
from data.corpus.coverage import lacking
from data.corpus.features import BLOCK, shard_block
from data.corpus.ledger import Ledger
from data.corpus.on_ray.blocks import (
    RESTARTS,
    TASK_CPUS,
    DiedError,
    OfBlocks,
    PreparationError,
    dataset_of,
    model_resources,
    of_block,
    resource,
    results,
    run_pass,
)
from data.corpus.on_ray.feature_actor import RowByRow, bert_actor, write_block
from data.corpus.on_ray.survey_actor import SurveyActor
from data.corpus.prepared import OF_FILES, changes, prepared_with
from data.corpus.recipe import Recipe, make_recipe
from data.corpus.report import save_report
from data.corpus.splits import combinations, decide_splits
from data.corpus.survey import count_phones, fatal, judge
from data.corpus.tables.files import TableFile, remove_leftovers
from data.corpus.tables.places import Places
from data.corpus.tables.records import SURVEYED, circumstances
from data.corpus.tables.rows import AT_A_TIME, Rows
from data.corpus.tables.shard_rows import HeldRows
from data.corpus.tables.surveyed import Surveyed
from data.corpus.transcript import Transcript, read_transcript
from data.files import below
from data.memory import give_back_freed_memory
from data.plan.blocks import strip_order
from data.quality.alike import warnings_of_names
from data.quality.players import excerpts
from data.shards.generations import with_generations
from data.shards.manifest import (
    COLUMNS,
    SCHEMA_VERSION,
    SPLITS,
    Manifest,
    earlier_header,
    known_speakers,
    number_speakers,
    write_manifest,
)
from data.shards.shard import list_shards, read_index, remove_unreferenced, with_ranges

S = TypeVar("S", list[str], np.ndarray)
# Ray Data's executor remembers some kB of each block; what is in a block is lost with a killed run
BLOCKS = 1600
LINES_PER_BLOCK, MOST_LINES_PER_BLOCK = 64, 512
FOOTERS_AT_A_TIME = 16
SHARDS_AT_A_TIME = 8  # whose rows are collected together


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
    remove_leftovers()
    if transcript is None:
        transcript = read_transcript(
            cfg.transcript, cfg.audio_root, cfg.max_reject_share, cfg.layout, cfg.language
        )
    header, table = _rows_in_shards(cfg, transcript)
    give_back_freed_memory()
    rows = with_generations(cfg.shards, with_ranges(cfg.shards, table.table))
    # new shards are there already and old ones go last: a manifest never names a missing shard
    manifest = write_manifest(cfg.shards, header, rows)
    remove_unreferenced(cfg.shards, set(manifest.words("shard")))
    return manifest


def _rows_in_shards(cfg: DataConfig, transcript: Transcript) -> tuple[dict, TableFile]:
    """Run both passes; return the header and the rows of the manifest.

    Raises: see `prepare`.
    """
    before = earlier_header(cfg.shards)
    known = known_speakers(cfg.shards, cfg.speakers)
    recipe = make_recipe(cfg, transcript.lines.words("language"))
    held = _held_rows(cfg.shards)

    surveyed = _survey(cfg, transcript, recipe, held)
    ledger, rows, splits = _judged(cfg, transcript, surveyed, held)
    if before and before["schema_version"] == SCHEMA_VERSION:
        _tell_changes(cfg, before, len(rows.new), len(rows))
    places = _compute(cfg, recipe, rows, held)
    while places.ended:
        # others may be kept in their place: those with the same recording
        _reject_ended(circumstances(cfg, recipe), surveyed, rows, places)
        held = _held_rows(cfg.shards)
        ledger, rows, splits = _judged(cfg, transcript, surveyed, held)
        places = _compute(cfg, recipe, rows, held)

    speakers = number_speakers(rows.codes("speaker")[1], known)
    header = _header(cfg, recipe, ledger, speakers)
    header["prepared"] = prepared_with(cfg, transcript, header["languages"])
    surveyed.compact(rows.line)
    return header, _manifest_table(rows, splits, places.table())


def _judged(
    cfg: DataConfig, transcript: Transcript, surveyed: Surveyed, held: HeldRows
) -> tuple[Ledger, Rows, np.ndarray]:
    """Book every line, tell of it in the terminal and in files; return rows with their splits.

    Raises:
        ValueError: too many lines are rejected, or none is left to train on.
    """
    ledger, rows = judge(cfg, transcript, surveyed, held)
    give_back_freed_memory()
    splits = decide_splits(cfg, rows)
    warnings = lacking(*zip(*combinations(rows, splits), strict=True)) if len(rows) else []
    warnings += warnings_of_names(ledger.quality.voices)
    # before anything is refused: the user reads here which lines to fix
    print(ledger.table(), flush=True)
    for warning in warnings:
        print(f"warning: {warning}", flush=True)
    ledger.save(below(cfg.shards, "rejects.jsonl"))
    ledger.save_unread(below(cfg.shards, "unread.jsonl"))
    ledger.quality.save(below(cfg.shards, "quality.jsonl"))
    phones, players = count_phones(rows, held), excerpts(ledger.quality.worst, cfg)
    save_report(below(cfg.shards, "report.html"), ledger, phones, warnings, players)
    ledger.check(cfg.max_reject_share, cfg.shards)
    check_training_split(rows, splits)
    return ledger, rows, splits


def _reject_ended(
    circumstances: Mapping[str, str], surveyed: Surveyed, rows: Rows, places: Places
) -> None:
    """Let lines that ended processes of the second pass be rejected from now on."""
    print(f"{len(places.ended)} lines end the process that computes them; without them:")
    found = []
    for row, error in places.ended.items():
        number = int(rows.line[row])
        line = asdict(rows.lines[number])
        unread = surveyed.unread.get(number, "")
        found.append(fatal(circumstances, {**line, "line": number}, error) | {"unread": unread})
    surveyed.add(pa.Table.from_pylist(found, schema=SURVEYED))
    surveyed.flush()


def check_training_split(rows: Rows, splits: np.ndarray) -> None:
    """Refuse a transcript that holds all its lines back.

    Raises:
        PreparationError: names the first line.
    """
    if (splits == SPLITS.index("train")).any():
        return
    line = rows.lines[int(rows.line.min())]
    raise PreparationError(
        f"{line.source}:{line.number}: this and all other lines are of the split validation "
        f"({len(rows)} in all), so that nothing is left to train on: say train in some, or leave "
        "`split` out; a corpus for job.evaluate alone is one of the split train (--split train)"
    )


def _in_strips(rows: Rows) -> np.ndarray:
    """Return the new rows as shards are written, int64 [n]: the plan's neighbours side by side."""
    parts = [rows.columns(few, ["id"]) for few in _chunks(rows.new, AT_A_TIME)]
    ids = pa.concat_tables(parts).column("id")
    by = [("frames", "ascending"), ("id", "ascending")]  # as a manifest is sorted
    table = pa.table({"frames": rows.frames[rows.new], "id": ids})
    new = rows.new[pc.sort_indices(table, sort_keys=by).to_numpy()]
    return new[strip_order(rows.frames[new], rows.phones[new])]


def _tell_changes(cfg: DataConfig, before: Mapping[str, Any], new: int, rows: int) -> None:
    """Print what differs from the preparation before, and what is computed because of it."""
    for change in changes(cfg, before, with_files=True):
        only_new = " (in new shards alone)" if change.key in OF_FILES else ""
        print(f"data.{change.key} was {change.prepared}, is {change.configured}{only_new}")
    print(f"{new} of {rows} rows are computed, the others are there already", flush=True)


def _held_rows(uri: str) -> HeldRows:
    """Return rows of all shards: also those that an interrupted run wrote."""
    shards = list_shards(uri)

    def indices() -> Iterator[tuple[str, list[dict]]]:
        # one footer each: on an object store the time is all waiting
        with ThreadPoolExecutor(FOOTERS_AT_A_TIME) as pool:
            for few in _chunks(shards, 4 * FOOTERS_AT_A_TIME):
                found = pool.map(lambda shard: read_index(uri, shard), few)
                yield from zip(few, found, strict=True)

    return HeldRows(indices())


def _survey(cfg: DataConfig, transcript: Transcript, recipe: Recipe, held: HeldRows) -> Surveyed:
    """Run the first pass over the usable lines."""
    surveyed = Surveyed(transcript.lines, cfg.shards)
    count = len(transcript.lines)
    if not count:
        return surveyed
    size = min(max(count // BLOCKS, LINES_PER_BLOCK), MOST_LINES_PER_BLOCK)
    blocks = surveyed.blocks(recipe, circumstances(cfg, recipe), held, size)
    try:
        for found in run_pass("survey", count, survey_blocks(cfg, recipe, blocks)):
            surveyed.add(found)
    finally:
        surveyed.flush()
    return surveyed


def survey_blocks(cfg: DataConfig, recipe: Recipe, blocks: TableFile) -> Iterator[pa.Table]:
    """Yield rows of SURVEYED of batches of LINE, in any order."""
    actors = min(blocks.count, max(1, int(resource("CPU"))))
    dataset = dataset_of(blocks).map_batches(
        OfBlocks,
        fn_constructor_args=(SurveyActor, cfg, recipe),
        batch_size=1,
        batch_format="pyarrow",
        num_cpus=TASK_CPUS,
        max_restarts=RESTARTS,
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=actors),
    )
    return results(dataset)


def _compute(cfg: DataConfig, recipe: Recipe, rows: Rows, held: HeldRows) -> Places:
    """Run the second pass over rows that no shard holds, one block per shard.

    Once a process of it has died, what is left is computed row by row.

    Returns:
        Where each of the rows lies now, or why it is rejected.
    """
    places = Places(rows, held)
    if len(rows.new):
        blocks = TableFile(BLOCK)
        for few in _chunks(_in_strips(rows), SHARDS_AT_A_TIME * cfg.rows_per_shard):
            table = shard_block(rows, few)
            for start in range(0, len(few), cfg.rows_per_shard):
                blocks.append(table.slice(start, cfg.rows_per_shard))
        give_back_freed_memory()
        try:
            for written in run_pass("features", len(blocks), feature_blocks(cfg, recipe, blocks)):
                places.add(written)
        except DiedError:
            left = _left(blocks, places)
            print("a process died: what is left is computed line by line, to find the one at fault")
            for written in run_pass("features", len(left), row_blocks(cfg, recipe, left)):
                places.add(written)
    return places


def _left(blocks: TableFile, places: Places) -> TableFile:
    """Return the blocks that are in no shard yet."""
    left = TableFile(BLOCK)
    for batch in blocks.batches():
        (first,) = places.rows_of(batch.column("key").slice(0, 1))
        if places.shard[first] < 0:
            left.append(pa.Table.from_batches([batch]))
    return left


def feature_blocks(cfg: DataConfig, recipe: Recipe, blocks: TableFile) -> Iterator[pa.Table]:
    """Yield rows of WRITTEN of batches of BLOCK, each of which becomes a shard; in any order.

    Raises:
        DiedError: a process died. It is not started again, as it may die of a row.
    """
    cpus, gpus, actors = model_resources("BERT")
    dataset = (
        dataset_of(blocks)
        .map_batches(
            OfBlocks,
            fn_constructor_args=(bert_actor, cfg, "cuda" if gpus else "cpu"),
            batch_size=1,
            batch_format="pyarrow",
            num_cpus=cpus,
            num_gpus=gpus,
            max_restarts=0,
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=min(blocks.count, actors)),
        )
        .map_batches(
            partial(of_block, partial(write_block, cfg=cfg, recipe=recipe)),
            batch_size=1,
            batch_format="pyarrow",
            num_cpus=TASK_CPUS,
            max_retries=0,
        )
    )
    return results(dataset)


def row_blocks(cfg: DataConfig, recipe: Recipe, blocks: TableFile) -> Iterator[pa.Table]:
    """Yield what `feature_blocks` does, row by row, and WRITTEN of those that end their process."""
    cpus, gpus, actors = model_resources("BERT")
    process = partial(
        RowByRow, cfg, recipe, "cuda" if gpus else "cpu", num_cpus=cpus, num_gpus=gpus
    )
    dataset = dataset_of(blocks).map_batches(
        OfBlocks,
        fn_constructor_args=(process,),
        batch_size=1,
        batch_format="pyarrow",
        num_cpus=0,
        max_restarts=RESTARTS,
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=min(blocks.count, actors)),
    )
    return results(dataset)


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
        "languages": ledger.languages,
        "speakers": speakers,
        "counts": ledger.counts(),
        "hours": round(ledger.hours, 6),
    }


def _manifest_table(rows: Rows, splits: np.ndarray, places: pa.Table) -> TableFile:
    """Return rows of the manifest's COLUMNS."""
    table = TableFile(COLUMNS)
    for part in rows.in_parts():
        columns = rows.columns(part, ["id", "speaker", "language"])
        found = {name: columns.column(name) for name in columns.column_names}
        found |= {
            "key": pa.array(rows.keys(part).astype(str)),
            "split": pa.array([SPLITS[code] for code in splits[part]]),
            "frames": pa.array(rows.frames[part]),
            "phones": pa.array(rows.phones[part]),
            "samples": pa.array(rows.samples[part]),
        }
        few = places.slice(part.start, part.stop - part.start)
        found |= {name: few.column(name) for name in few.column_names}
        columns = pa.table({name: found[name] for name in COLUMNS.names})
        table.append(columns.cast(COLUMNS))
    return table


def _chunks(items: S, size: int) -> Iterator[S]:
    for start in range(0, len(items), size):
        yield items[start : start + size]

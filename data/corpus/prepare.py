"""Preparation: recordings and a transcript become shards and a manifest, with Ray Data, in two passes.

1. Survey: every line's recording is read and hashed; what no shard holds yet is decoded and its
   text is turned into phones. Only text and lengths come back, so that the ledger can refuse a bad
   transcript before the costly part.
2. Features: the new rows, sorted by length and cut into shards, run through BERT (an actor pool, on
   GPUs where there are any) and a writer that decodes the recording again, encodes it and writes
   the shard.

Two passes, because the order of length must be known before shards are written: decoding twice
costs little (over 1000 x real time), while sorting finished rows would send all audio through the
object store. So it holds no audio, and features only of the shards under way.

Shards are immutable and rows are addressed by content, so preparing again computes what changed,
and a run that was interrupted goes on with the shards it had written. The manifest is replaced when
all shards are there; shards that it no longer names are removed last.
"""

import contextlib
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pyarrow as pa
import ray
import ray.data

from data.config import DataConfig
from data.corpus.features import BertActor, shard_block
from data.corpus.ledger import Ledger
from data.corpus.progress import Progress
from data.corpus.recipe import Recipe, make_recipe
from data.corpus.report import save_report
from data.corpus.survey import LINE, SURVEYED, HeldRow, Surveyor, count_phones, judge, line_rows
from data.corpus.transcript import Transcript, read_transcript
from data.corpus.writer import write_rows
from data.files import below
from data.shards.manifest import (
    COLUMNS,
    Manifest,
    known_speakers,
    number_speakers,
    split_of,
    write_manifest,
)
from data.shards.shard import list_shards, read_index, remove_unreferenced

LINES_PER_BLOCK = 64
# less than one: a machine with a single logical CPU must hold a BERT actor and a writer
TASK_CPUS = 0.5


class PreparationError(ValueError):
    """A preparation that cannot go on, through no fault of a single line; what was written is kept."""


def prepare(cfg: DataConfig) -> Manifest:
    """Prepare a corpus, or bring one up to date. Ray must have been started by the caller.

    Args:
        cfg: `transcript` and `shards` say where from and where to.

    Returns:
        The manifest that now lies at `cfg.shards`; its digest depends on the input and the settings
        alone.

    Raises:
        ValueError: there is no transcript, settings contradict each other, too many lines were
            rejected, a store does not answer or is full, or a recording changed meanwhile.
        OSError: likewise, of the transcript and the shards' folder.
    """
    transcript = read_transcript(cfg.transcript, cfg.audio_root)
    speakers = known_speakers(cfg.shards)
    recipe = make_recipe(cfg, {line.language for line in transcript.lines})
    held = _held_rows(cfg.shards)
    surveyed = _survey(cfg, transcript, recipe, held)
    ledger, rows = judge(cfg, transcript, surveyed, held)
    print(ledger.table(), flush=True)
    ledger.save(below(cfg.shards, "rejects.jsonl"))
    save_report(below(cfg.shards, "report.html"), ledger, count_phones(rows, surveyed, held))
    ledger.check(cfg.max_reject_share)
    places = {key: (row.shard, row.row) for key, row in held.items()}
    places |= _compute(cfg, recipe, surveyed, [row for row in rows if row["key"] not in held])
    header = _header(
        cfg, recipe, ledger, number_speakers({row["speaker"] for row in rows}, speakers)
    )
    manifest = write_manifest(cfg.shards, header, _manifest_table(cfg, rows, places))
    remove_unreferenced(cfg.shards, set(manifest.column("shard")))
    return manifest


def _held_rows(uri: str) -> dict[str, HeldRow]:
    """Rows of all shards by key: those that the manifest names, and those of a run that was interrupted."""
    shards = list_shards(uri)
    # a footer each: on an object store the time is all waiting
    with ThreadPoolExecutor(16) as pool:
        indices = pool.map(lambda shard: read_index(uri, shard), shards)
        return {
            entry["key"]: HeldRow(shard, number, entry["samples"], entry["phones"])
            for shard, index in zip(shards, indices, strict=True)
            for number, entry in enumerate(index)
        }


def _survey(
    cfg: DataConfig, transcript: Transcript, recipe: Recipe, held: dict[str, HeldRow]
) -> pa.Table:
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
        compute=ray.data.ActorPoolStrategy(
            min_size=1, max_size=min(len(blocks), max(1, int(_resource("CPU"))))
        ),
    )
    return _run(dataset, "survey", len(transcript.lines))


def _compute(
    cfg: DataConfig, recipe: Recipe, surveyed: pa.Table, rows: list[dict]
) -> dict[str, tuple[str, int]]:
    """Second pass: compute and write rows that no shard holds, a block a shard; key -> (shard, row)."""
    if not rows:
        return {}
    blocks = [shard_block(surveyed, chunk) for chunk in _chunks(rows, cfg.rows_per_shard)]
    if on_gpu := _resource("GPU") >= 1:
        cpus, actors = TASK_CPUS, _resource("GPU")
    else:  # few actors with several threads: a large model takes over 1 GB a language and actor
        cpus = min(4, _resource("CPU") // 2) or TASK_CPUS
        actors = max(1, _resource("CPU") // (2 * cpus))
    dataset = (
        ray.data.from_arrow(blocks)
        .map_batches(
            BertActor,
            fn_constructor_args=(cfg, "cuda" if on_gpu else "cpu"),
            batch_size=None,
            batch_format="pyarrow",
            num_cpus=cpus,
            num_gpus=int(on_gpu),
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=min(len(blocks), int(actors))),
        )
        .map_batches(
            partial(write_rows, cfg=cfg, recipe=recipe),
            batch_size=None,
            batch_format="pyarrow",
            num_cpus=TASK_CPUS,
        )
    )
    return {
        row["key"]: (row["shard"], row["row"])
        for row in _run(dataset, "features", len(rows)).to_pylist()
    }


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
    cfg: DataConfig, rows: list[dict], places: dict[str, tuple[str, int]]
) -> pa.Table:
    splits = split_of(
        {row["id"]: row["speaker"] for row in rows},
        cfg.validation_per_speaker,
        cfg.validation_share,
        cfg.split_seed,
        {row["id"]: row["split"] for row in rows if row["split"]},
    )
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
    return pa.Table.from_pylist(
        [{name: row[name] for name in schema.names} for row in rows], schema=schema
    )


def _resource(name: str) -> float:
    return ray.cluster_resources().get(name, 0)


def _run(dataset: ray.data.Dataset, what: str, rows: int) -> pa.Table:
    """Run a dataset and take its rows, as many as said; stops at the first `problem` among them."""
    # ours say when it is done
    dataset.context.enable_progress_bars = dataset.context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    # it warns that there are no bars
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)
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

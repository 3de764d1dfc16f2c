"""The second pass over a corpus, second half: recordings are decoded, encoded and written.

What concerns all rows (a store that does not answer, a full disk, a recording that changed
meanwhile) is returned as a `problem`, for the run to stop with.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pyarrow as pa

from data.audio.recording import decode_audio, decode_flac, encode_flac, read_audio
from data.config import DataConfig
from data.corpus.recipe import Recipe
from data.quality.measures import stored
from data.rejected import RejectedError
from data.shards.shard import write_shard

WRITTEN = pa.schema(
    [
        ("key", pa.string()),
        ("shard", pa.string()),  # null, as `row`, if the line ends its process
        ("row", pa.int32()),
        ("reason", pa.string()),  # of such a line
        ("detail", pa.string()),
        ("problem", pa.string()),  # why the whole run stops; all above is then null
    ]
)
Limited = Callable[[], AbstractContextManager]


class ProblemError(Exception):
    """What concerns all rows; the message is the `problem`."""


def write_rows(
    rows: pa.Table, cfg: DataConfig, recipe: Recipe, limited: Limited = nullcontext
) -> pa.Table:
    """Decode and encode the recordings of a shard, and write it.

    Args:
        rows: rows of data.corpus.features.BertActor.
        cfg: where to write, and how audio and spectrograms are made.
        recipe: recipe that the rows' keys were made by.
        limited: what a recording is decoded and encoded in.

    Returns:
        Rows of WRITTEN.
    """
    # one row at a time as Python objects, to hold little memory
    each = (rows.slice(number, 1) for number in range(rows.num_rows))
    return write_finished(cfg.shards, (finished_row(row, cfg, recipe, limited) for row in each))


def write_finished(shards: str, rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Write a shard.

    Args:
        shards: folder or URI to write below.
        rows: as `finished_row` makes them; they are taken one at a time.

    Returns:
        Rows of WRITTEN.
    """
    keys: list[str] = []

    def noted() -> Iterator[Mapping[str, Any]]:
        for row in rows:
            keys.append(row["key"])
            yield row

    try:
        shard = write_shard(shards, noted())
    except (ProblemError, OSError) as error:
        return pa.Table.from_pylist([{"problem": str(error)}], schema=WRITTEN)
    places = [{"key": key, "shard": shard, "row": number} for number, key in enumerate(keys)]
    return pa.Table.from_pylist(places, schema=WRITTEN)


def finished_row(row: pa.Table, cfg: DataConfig, recipe: Recipe, limited: Limited) -> dict:
    """Return a row of SHARD_COLUMNS, and its `quality`.

    Args: see `write_rows`; row: one row.

    Raises:
        ProblemError: the recording is not what it was in the first pass.
        OSError: it cannot be read.
    """
    found = row.to_pylist()[0]
    audio = _unchanged_audio(found, recipe)
    with limited():
        flac = encode_flac(decode_audio(audio, cfg), cfg.sampling_rate)
        spec = stored_spectrogram(flac, cfg) if cfg.spectrogram_on == "shards" else b""
    return found | {"audio": flac, "spec": spec, "quality": stored(found)}


def _unchanged_audio(row: dict, recipe: Recipe) -> bytes:
    """Read a row's recording, and check that the row's key is still that of its content."""
    changed = ProblemError(
        f"{row['uri']} changed while it was prepared. Run python -m job.prepare again: "
        "it keeps what is finished"
    )
    try:
        audio = read_audio(row["uri"])
    except RejectedError as error:
        raise changed from error
    if recipe.key(row["id"], row["text"], row["language"], row["speaker"], audio) != row["key"]:
        raise changed
    return audio


def stored_spectrogram(flac: bytes, cfg: DataConfig) -> bytes:
    """Return the spectrogram of the audio that training will decode.

    Returns:
        float32 [filter_length / 2 + 1, frames] as bytes.
    """
    import torch  # here and not above, as few corpora store spectrograms

    from data.audio.spectrogram import spectrogram

    wav = torch.from_numpy(decode_flac(flac))[None]
    return spectrogram(wav, cfg.filter_length, cfg.hop_length, cfg.win_length)[0].numpy().tobytes()

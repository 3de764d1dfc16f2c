"""The second pass over a corpus, second half: recordings are decoded, encoded and written.

What concerns all rows (a store that does not answer, a full disk, a recording that changed
meanwhile) is returned as a `problem`, for the run to stop with.
"""

from collections.abc import Iterator

import pyarrow as pa

from data.audio.recording import decode_audio, decode_flac, encode_flac, read_audio
from data.config import DataConfig
from data.corpus.recipe import Recipe
from data.quality.measures import stored
from data.rejected import RejectedError
from data.shards.shard import write_shard

WRITTEN = pa.schema(
    [("key", pa.string()), ("shard", pa.string()), ("row", pa.int32()), ("problem", pa.string())]
)


def write_rows(rows: pa.Table, cfg: DataConfig, recipe: Recipe) -> pa.Table:
    """Decode and encode the recordings of a shard, and write it.

    Args:
        rows: rows of data.corpus.features.BertActor.
        cfg: where to write, and how audio and spectrograms are made.
        recipe: recipe that the rows' keys were made by.

    Returns:
        Rows of WRITTEN.
    """
    finished: list[str] = []
    try:
        shard = write_shard(cfg.shards, _finish(rows, cfg, recipe, finished))
    except ChangedError as error:
        return _problem(
            f"{error} changed while it was prepared. Run python -m job.prepare again: "
            "it keeps what is finished"
        )
    except OSError as error:
        return _problem(str(error))
    places = [{"key": key, "shard": shard, "row": number} for number, key in enumerate(finished)]
    return pa.Table.from_pylist(places, schema=WRITTEN)


class ChangedError(Exception):
    """A recording is not what it was in the first pass."""


def _finish(rows: pa.Table, cfg: DataConfig, recipe: Recipe, finished: list[str]) -> Iterator[dict]:
    """Yield rows of SHARD_COLUMNS one by one, and append their keys to `finished`."""
    for number in range(rows.num_rows):
        # one row at a time as Python objects, to hold little memory
        row = rows.slice(number, 1).to_pylist()[0]
        audio = _unchanged_audio(row, recipe)
        flac = encode_flac(decode_audio(audio, cfg), cfg.sampling_rate)
        spec = stored_spectrogram(flac, cfg) if cfg.spectrogram_on == "shards" else b""
        finished.append(row["key"])
        yield row | {"audio": flac, "spec": spec, "quality": stored(row)}


def _unchanged_audio(row: dict, recipe: Recipe) -> bytes:
    """Read a row's recording, and check that the row's key is still that of its content."""
    try:
        audio = read_audio(row["uri"])
    except RejectedError as error:
        raise ChangedError(row["uri"]) from error
    if recipe.key(row["id"], row["text"], row["language"], row["speaker"], audio) != row["key"]:
        raise ChangedError(row["uri"])
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


def _problem(what: str) -> pa.Table:
    return pa.Table.from_pylist([{"problem": what}], schema=WRITTEN)

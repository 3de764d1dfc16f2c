"""A manifest's table as training holds it: few bytes per row, look-ups in constant time.

It is two Arrow tables. ROWS is what every process reads; strings are dictionary-encoded and content
addresses are binary. NAMES is for messages and for preparation. Neither is changed after it was
made, so that processes can share them (`data.shards.node_files`).

    rows    speaker, language, split, shard     dictionary-encoded
            frames, phones                      as in the manifest
            row, offset, length, checksum       with as few bytes as they need; length 0: no range
            key                                 16 bytes; a string where it is no hexadecimal number
            by_hash                             int32: all rows, in the order of a hash of their ids
            split_rows                          int32: the rows of one split after those of another
            split_frames, split_phones          int32: their lengths
            split_generation                    theirs, with as few bytes as it needs; left out if
                                                the manifest has none
    names   id, samples                         as in the manifest
"""

import bisect
import functools
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

ROWS, NAMES = "rows", "names"
OF_NAMES = ("id", "samples")
TEXTS = ("speaker", "language", "split", "shard")
NUMBERS = ("frames", "phones", "samples", "row")
RANGE = ("offset", "length", "checksum")
GENERATION = "generation"
DIGESTED = ("id", "key", "speaker", "language", "split", "frames", "phones")
AT_A_TIME = 1 << 16  # rows that are converted together, to hold little memory

_HEX = np.full(256, 255, np.uint8)  # ASCII -> value of a hexadecimal digit; 255 for other bytes
_HEX[np.frombuffer(b"0123456789abcdef", np.uint8)] = np.arange(16)


@dataclass(frozen=True, eq=False)
class Columns:
    """The columns of a manifest.

    Attributes:
        tables: ROWS and NAMES, as `compact` returns them; of ROWS each column is one chunk.
    """

    tables: dict[str, pa.Table]

    def __len__(self) -> int:
        return self.tables[ROWS].num_rows

    def whole(self, name: str) -> pa.Array | pa.ChunkedArray:
        """Return a column as the manifest's file has it; texts are copied."""
        if name in OF_NAMES:
            return self.tables[NAMES].column(name)
        if name == GENERATION:
            found = np.zeros(len(self), np.int32)
            found[self.numbers("split_rows")] = self.numbers("split_generation")
            return pa.array(found)
        if name == "key" and self._key_bytes is not None:
            parts = [_hexadecimal(part) for part in _parts(self._key_bytes)]
            return pa.chunked_array(parts, pa.string())
        return self._held(name).dictionary_decode() if name in TEXTS else self._held(name)

    def values(self, name: str, rows: Sequence[int] | np.ndarray) -> list[Any]:
        """Return a column's values in some rows; the cost does not grow with the corpus."""
        if name in TEXTS:
            words = self.words(name)
            return [words[code] for code in self.numbers(name)[rows].tolist()]
        if name not in (*OF_NAMES, "key"):
            return self.numbers(name)[rows].tolist()
        if name == "key" and self._key_bytes is not None:
            width = 2 * self._key_bytes.shape[1]
            digits = self._key_bytes[rows].tobytes().hex()
            return [digits[at : at + width] for at in range(0, len(digits), width)]
        column = self.tables[NAMES].column(name) if name in OF_NAMES else self._held(name)
        return [column[int(row)].as_py() for row in rows]

    @property
    def has_ranges(self) -> bool:
        """Whether the manifest tells where rows lie in their files, of all or of some."""
        return RANGE[0] in self.tables[ROWS].column_names

    @property
    def has_generations(self) -> bool:
        """Whether rows were added by more than one preparation."""
        return "split_generation" in self.tables[ROWS].column_names

    def words(self, name: str) -> list[str]:
        """Return the values of a column of TEXTS, each once."""
        return self._words[name]

    def numbers(self, name: str) -> np.ndarray:
        """Return a column as numpy sees it, [rows]: of TEXTS the numbers of their `words`."""
        if name not in OF_NAMES:
            return self._numbers[name]
        column = self.tables[NAMES].column(name)
        if column.num_chunks == 1:
            return column.chunk(0).to_numpy(zero_copy_only=True)
        return column.to_numpy()

    def having(self, name: str, word: str) -> np.ndarray:
        """Tell of each row whether its value in a column of TEXTS is `word`, bool [rows]."""
        words = self.words(name)
        return self.numbers(name) == (words.index(word) if word in words else len(words))

    def counts(self, name: str, rows: np.ndarray) -> dict[str, int]:
        """Return how often each value of a column of TEXTS occurs in rows: those that do.

        Args:
            name: name of the column.
            rows: int [n], or bool [rows].
        """
        counted = np.bincount(self.numbers(name)[rows]).tolist()
        return {
            word: count for word, count in zip(self.words(name), counted, strict=False) if count
        }

    def rows(self, split: str) -> np.ndarray:
        """Return the rows of a split, int32 [n], ascending."""
        return self.numbers("split_rows")[self._span(split)]

    def lengths(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the frames and phones of a split's rows, int32 [n] each."""
        span = self._span(split)
        return self.numbers("split_frames")[span], self.numbers("split_phones")[span]

    def generations(self, split: str) -> np.ndarray | None:
        """Return the number of the preparation that added each of a split's rows, int [n].

        None if all were added by one.
        """
        if not self.has_generations:
            return None
        return self.numbers("split_generation")[self._span(split)]

    def digest_of_generations(self) -> str | None:
        """Return what identifies the generations of all rows; None if there is one."""
        if not self.has_generations:
            return None
        numbers = self.whole(GENERATION).to_numpy(zero_copy_only=True)
        return hashlib.sha256(numbers.astype("<i4", copy=False)).hexdigest()

    def sample(self, split: str, limit: int, min_frames: int) -> np.ndarray:
        """Return up to `limit` rows of a split, int64 [n], by a hash of their ids.

        Args:
            split: name of the split.
            limit: number of rows.
            min_frames: shorter utterances are left out.
        """
        found: list[np.ndarray] = []
        wanted = limit
        if split in self.words("split"):
            code = self.words("split").index(split)
            splits, frames = self.numbers("split"), self.numbers("frames")
            for rows in _parts(self.numbers("by_hash")):
                found.append(rows[(splits[rows] == code) & (frames[rows] >= min_frames)][:wanted])
                wanted -= len(found[-1])
                if not wanted:
                    break
        return np.concatenate([np.zeros(0, np.int64), *found])

    def _span(self, split: str) -> slice:
        """Return where the rows of a split stand in `split_rows`."""
        if split not in self.words("split"):
            return slice(0)
        code = self.words("split").index(split)
        rows, splits = self.numbers("split_rows"), self.numbers("split")
        first = bisect.bisect_left(rows, code, key=splits.__getitem__)
        return slice(first, bisect.bisect_right(rows, code, first, key=splits.__getitem__))

    def _held(self, name: str) -> pa.Array:
        column = self.tables[ROWS].column(name)
        assert column.num_chunks <= 1, "numpy would see a copy"
        return column.chunk(0) if column.num_chunks else pa.array([], column.type)

    @functools.cached_property
    def _words(self) -> dict[str, list[str]]:
        return {name: self._held(name).dictionary.to_pylist() for name in TEXTS}

    @functools.cached_property
    def _numbers(self) -> dict[str, np.ndarray]:
        columns = {name: self._held(name) for name in self.tables[ROWS].column_names}
        columns.pop("key")
        return {
            name: (column.indices if name in TEXTS else column).to_numpy(zero_copy_only=True)
            for name, column in columns.items()
        }

    @functools.cached_property
    def _key_bytes(self) -> np.ndarray | None:
        """The content addresses, uint8 [rows, bytes]; None where they are strings."""
        column = self._held("key")
        if not pa.types.is_fixed_size_binary(column.type):
            return None
        return np.frombuffer(column.buffers()[1], np.uint8).reshape(-1, column.type.byte_width)


def compact(
    read: Callable[[str], Iterable[pa.Array]],
    has_ranges: bool = False,
    has_generations: bool = False,
) -> tuple[Columns, str]:
    """Return the columns of a manifest, and their digest, which needs no Python objects.

    Args:
        read: yields a column of the manifest in parts; asked for one column at a time.
        has_ranges: whether it has the columns RANGE.
        has_generations: whether it has the column GENERATION.

    Returns:
        The columns, and a sha256 of all that training sees of them: order, keys, speakers, splits.
        It is that of DIGESTED one after the other, the values of each as text between zero bytes.
    """
    digest = hashlib.sha256()
    held: dict[str, pa.Array] = {}
    names: dict[str, pa.ChunkedArray] = {}
    for name in (*DIGESTED, "samples", "shard", "row", *(RANGE if has_ranges else ())):
        parts = list(_digested(digest, read(name)) if name in DIGESTED else read(name))
        if name in OF_NAMES:
            names[name] = pa.chunked_array(filter(len, parts), parts[0].type)
        elif name == "key":
            held[name] = _binary_keys(parts)
        elif name in TEXTS:
            held[name] = _encoded(parts)
        else:
            whole = pa.concat_arrays([part.fill_null(0) for part in parts])
            held[name] = _narrow(whole) if name in ("row", *RANGE) else whole

    splits = held["split"].indices.to_numpy(zero_copy_only=True)
    rows = np.argsort(splits, kind="stable").astype(np.int32)
    held["by_hash"] = pa.array(_by_hash(names["id"]))
    held["split_rows"] = pa.array(rows)
    for name in ("frames", "phones"):
        held[f"split_{name}"] = pa.array(held[name].to_numpy(zero_copy_only=True)[rows])
    if has_generations:
        whole = pa.concat_arrays(list(read(GENERATION)))
        held["split_generation"] = _narrow(whole.take(held["split_rows"]))
    return Columns({ROWS: pa.table(held), NAMES: pa.table(names)}), digest.hexdigest()


def _digested(digest: "hashlib._Hash", parts: Iterable[pa.Array]) -> Iterator[pa.Array]:
    """Yield the parts of a column, whose values go into the digest."""
    between = b""
    for part in parts:
        for few in _parts(part):
            texts = few.cast(pa.string()).fill_null("None")
            ends = pa.array([0, len(texts)], pa.int32())
            (joined,) = pc.binary_join(pa.ListArray.from_arrays(ends, texts), "\0")
            digest.update(between)
            digest.update(joined.as_buffer())
            between = b"\0"
        yield part


def _narrow(numbers: pa.Array) -> pa.Array:
    """Return whole numbers in the smallest type that holds them all."""
    ends = [end for end in pc.min_max(numbers).as_py().values() if end is not None]
    return numbers.cast(pa.from_numpy_dtype(np.result_type(*map(np.min_scalar_type, [0, *ends]))))


def _encoded(parts: Sequence[pa.Array]) -> pa.DictionaryArray:
    """Return texts as a dictionary, and the smallest numbers that count its entries."""
    # of all parts together: dictionaries with an empty cell cannot be joined
    whole = pa.chunked_array(parts, pa.string()).dictionary_encode(null_encoding="encode")
    whole = whole.combine_chunks()
    least = np.min_scalar_type(-max(len(whole.dictionary), 1))
    codes = whole.indices.cast(pa.from_numpy_dtype(least))
    return pa.DictionaryArray.from_arrays(codes, whole.dictionary)


def _binary_keys(parts: Sequence[pa.Array]) -> pa.Array:
    """Return content addresses as bytes, or as they are where they are no numbers of one length."""
    found = [_bytes_of(part) for part in parts if len(part)]
    numbers = [part for part in found if part is not None]
    if len(numbers) < len(found) or len({part.shape[1] for part in numbers}) != 1:
        return pa.concat_arrays([part.cast(pa.large_string()) for part in parts])
    whole = np.concatenate(numbers)
    return pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(whole.shape[1]), len(whole), [None, pa.py_buffer(whole)]
    )


def _bytes_of(keys: pa.Array) -> np.ndarray | None:
    """Return hexadecimal numbers of one even length as uint8 [n, bytes]; None for other texts."""
    lengths = pc.unique(pc.binary_length(keys)).to_pylist()
    if keys.null_count or len(lengths) != 1 or lengths[0] % 2 or not lengths[0]:
        return None
    found = []
    for few in _parts(keys):
        first = np.frombuffer(few.buffers()[1], np.int32, 1, 4 * few.offset)[0]
        letters = np.frombuffer(few.buffers()[2], np.uint8, len(few) * lengths[0], first)
        digits = _HEX[letters].reshape(len(few), -1, 2)
        if digits.max() > 15:
            return None
        found.append(digits[..., 0] << 4 | digits[..., 1])
    return np.concatenate(found)


def _hexadecimal(keys: np.ndarray) -> pa.Array:
    """Return what uint8 [n, bytes] is written as, strings [n]."""
    digits = np.frombuffer(b"0123456789abcdef", np.uint8)
    letters = digits[np.stack([keys >> 4, keys & 15], axis=-1)]
    ends = np.arange(len(keys) + 1, dtype=np.int32) * (2 * keys.shape[1])
    return pa.StringArray.from_buffers(len(keys), pa.py_buffer(ends), pa.py_buffer(letters))


def _by_hash(ids: pa.ChunkedArray) -> np.ndarray:
    """Return the rows, int32 [n], in the order of a hash of their ids; equals as they come."""
    hashes = [
        # ids are unique, so that sorting out equal ones first brings nothing
        pd.util.hash_array(few.to_numpy(zero_copy_only=False), categorize=False)
        for chunk in ids.chunks
        for few in _parts(chunk)
    ]
    found = np.concatenate([np.zeros(0, np.uint64), *hashes])
    return np.argsort(found, kind="stable").astype(np.int32)


def _parts(array: Any) -> Iterator[Any]:
    """Yield an array in parts."""
    for start in range(0, len(array), AT_A_TIME):
        yield array[start : start + AT_A_TIME]

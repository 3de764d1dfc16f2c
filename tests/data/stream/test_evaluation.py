"""The fixed sets of an evaluation: shared among the workers, and what their batches hold."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from data.config import BertConfig
from data.corpus.writer import stored_spectrogram
from data.shards.manifest import read_manifest
from data.shards.shard import ShardReader
from data.stream.collate import collate
from data.stream.damage import Damage
from data.stream.evaluation import evaluation_rows, evaluation_set
from data.stream.spec import StreamSpec
from tests.data.stream.corpus import make_corpus


@pytest.fixture(scope="module")
def spec(tmp_path_factory) -> StreamSpec:
    return make_corpus(str(tmp_path_factory.mktemp("shards")))


def test_validation_utterances_are_shared_and_fixed(spec):
    manifest = read_manifest(spec.data.shards)
    rows = evaluation_rows(spec, "validation", 64)
    assert sorted(manifest.column("id")[rows].tolist()) == ["17", "18", "19"]
    assert evaluation_rows(spec, "validation", 2).tolist() == rows[:2].tolist()
    assert len(evaluation_rows(spec, "train", 5)) == 5

    shares = [list(evaluation_set(spec, rows, rank, 2, Damage())) for rank in (0, 1)]
    assert [[u.number for u in share] for share in shares] == [[0, 2], [1]]
    first = shares[0][0]
    assert (first.row, first.language) == (rows[0], manifest.column("language")[rows[0]])
    assert first.text
    batch = first.batch
    assert batch.x.shape[0] == 1
    assert batch.spec.shape[1:] == (1025, int(batch.spec_lengths[0]))


def test_both_places_of_the_spectrogram_agree(spec):
    rows = evaluation_rows(spec, "validation", 1)
    here = next(evaluation_set(spec, rows, 0, 1, Damage())).batch
    device = replace(spec, data=replace(spec.data, spectrogram_on="device"))
    there = next(evaluation_set(device, rows, 0, 1, Damage())).batch
    assert there.spec is None
    assert (there.with_spectrogram(device.data).spec - here.spec).abs().max() < 1e-4


def test_stored_spectrograms_have_the_bits_of_computed_ones(spec):
    """Preparation makes them one utterance at a time, loaders in batches of several lengths."""
    manifest = read_manifest(spec.data.shards)
    reader = ShardReader(spec.data.shards)
    rows = [reader.row(place["shard"], place["row"]) for place in manifest.table.to_pylist()[:5]]
    stored = replace(spec.data, spectrogram_on="shards")
    computed = collate(rows, range(5), manifest.speakers, spec.data)["spec"]
    rows = [row | {"spec": stored_spectrogram(row["audio"], stored)} for row in rows]
    read = collate(rows, range(5), manifest.speakers, stored)["spec"]
    assert read.dtype == computed.dtype == np.float32
    assert np.array_equal(read, computed)


def test_inactive_languages_hear_noise_that_follows_from_the_seed_alone(spec):
    noisy = replace(spec, data=replace(spec.data, bert=BertConfig(inactive="noise")))
    rows = evaluation_rows(spec, "validation", 3)
    zeros = {u.number: u.batch for u in evaluation_set(spec, rows, 0, 1, Damage())}
    for utterance in evaluation_set(noisy, rows, 0, 1, Damage()):
        number, batch = utterance.number, utterance.batch
        torch.manual_seed(number)
        parts = batch.bert_features()
        torch.manual_seed(number)
        again = batch.to(torch.device("cpu")).bert_features()
        active = int(batch.language[0, 1])
        for language, (part, other, zero) in enumerate(
            zip(parts, again, zeros[number].bert_features(), strict=True)
        ):
            assert torch.equal(part, other)
            if language == active:
                assert torch.equal(part, zero)
            else:
                assert 0.5 < part.std() < 1.5


def test_bert_features_reach_their_language_and_their_phones(spec):
    for utterance in evaluation_set(spec, evaluation_rows(spec, "validation", 3), 0, 1, Damage()):
        number, batch = utterance.number, utterance.batch
        parts = batch.bert_features()
        active = int(batch.language[0, 1])
        assert [bool(p.abs().sum() > 0) for p in parts] == [i == active for i in range(3)], number
        # the first token's features stand on its blank, its phone and the blank behind it
        assert (parts[active][0, :, :3] == batch.bert[0, 0].float()[:, None]).all()
        assert parts[active].shape == (1, 8, 11)

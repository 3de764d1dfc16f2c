"""WavLM features: the random model and a saved one."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import WavLMModel

from trainable.model_config import SlmConfig
from trainable.weights.slm import TINY, load_slm

RATE = 44100
RANDOM = SlmConfig(path="random")


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    ours, theirs = a.state_dict(), b.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_the_random_model_is_the_same_on_every_call():
    torch.manual_seed(1)
    first = load_slm(RANDOM, RATE)
    torch.manual_seed(2)
    assert same(load_slm(RANDOM, RATE), first)


def test_the_random_model_leaves_the_global_generator_alone():
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    load_slm(RANDOM, RATE)
    assert torch.equal(torch.rand(4), expected)


def test_a_saved_folder_gives_its_own_weights_and_hidden_states(tmp_path):
    torch.manual_seed(4)
    wavlm = WavLMModel(TINY).eval()
    wavlm.save_pretrained(tmp_path)
    features = load_slm(SlmConfig(path=str(tmp_path)), 16000)
    own, saved = features.wavlm.state_dict(), wavlm.state_dict()
    shared = own.keys() & saved.keys()
    assert all(torch.equal(own[key], saved[key]) for key in shared)
    # attention has its weights in other pieces, and a weight norm is computed
    changed = (".attention.", ".pos_conv_embed.")
    assert all(any(part in key for part in changed) for key in own.keys() ^ saved.keys())
    assert not same(features.wavlm, load_slm(RANDOM, 16000).wavlm)
    wave = 0.1 * torch.randn(2, 3200)
    with torch.no_grad():
        states = wavlm(wave, output_hidden_states=True).hidden_states
        got = features(wave)
    assert tuple(got.shape) == (2, features.num_states, features.hidden_size, states[0].size(1))
    torch.testing.assert_close(got, torch.stack(states, 1).transpose(2, 3))


def test_it_is_frozen_and_stays_in_eval_mode():
    features = load_slm(RANDOM, RATE).train()
    assert not any(module.training for module in features.modules())
    assert not any(parameter.requires_grad for parameter in features.parameters())


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(OSError, match="missing"):
        load_slm(SlmConfig(path=str(tmp_path / "missing")), RATE)


class Products(TorchDispatchMode):
    """Shapes of the second factors of batched products."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func._schema.name == "aten::bmm":
            self.shapes.append(tuple(args[1].shape))
        return func(*args, **(kwargs or {}))


def test_attention_copies_no_weight():
    """For an input that is not contiguous torch would copy a frozen weight for every frame."""
    slm = load_slm(RANDOM, RATE)
    with Products() as products:
        slm(torch.rand(2, 16384))
    assert products.shapes
    assert not [
        shape for shape in products.shapes if shape[1:] == (slm.hidden_size, slm.hidden_size)
    ]


def test_weights_in_half_precision_give_what_autocast_gives():
    slm, wav = load_slm(RANDOM, RATE), torch.rand(2, 16384)
    with torch.autocast("cpu", torch.bfloat16):
        before = slm(wav)
        slm.store_as(torch.bfloat16)
        assert torch.equal(slm(wav), before)

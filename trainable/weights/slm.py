"""The WavLM of a configuration: a folder, a name on the hub, or a tiny random one."""

import torch
from transformers import WavLMConfig

from data.models import download_told
from trainable.model_config import SlmConfig
from trainable.networks.wavlm import WavLMFeatures

# One frame per 320 samples as in the real one, at a hundredth of its size.
TINY = WavLMConfig(
    hidden_size=32,
    num_hidden_layers=3,
    num_attention_heads=4,
    intermediate_size=64,
    conv_dim=(16, 16, 24),
    conv_kernel=(10, 4, 4),
    conv_stride=(5, 8, 8),
    num_conv_pos_embeddings=16,
    num_conv_pos_embedding_groups=4,
    num_buckets=64,
    max_bucket_distance=200,
    do_stable_layer_norm=False,
    feat_extract_norm="group",
)


def load_slm(cfg: SlmConfig, sampling_rate: int) -> WavLMFeatures:
    """Load WavLM for audio of `sampling_rate` Hz; `random` is the same model on every worker.

    Raises:
        OSError: neither a folder nor a name on the hub (transformers' own message).
    """
    if cfg.path != "random":
        with download_told(cfg.path, cfg.revision):
            return WavLMFeatures.from_pretrained(
                cfg.path, revision=cfg.revision, model_sr=sampling_rate, slm_sr=cfg.sampling_rate
            )
    from transformers import WavLMModel  # seconds of imports

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return WavLMFeatures(WavLMModel(TINY), sampling_rate, cfg.sampling_rate)


def slm_sizes(cfg: SlmConfig) -> tuple[int, int]:
    """Return width and number of the hidden states, from the model's description alone.

    Raises:
        OSError: neither a folder nor a name on the hub (transformers' own message).
    """
    if cfg.path == "random":
        model = TINY
    else:
        model = WavLMConfig.from_pretrained(cfg.path, revision=cfg.revision or "main")
    return model.hidden_size, model.num_hidden_layers + 1

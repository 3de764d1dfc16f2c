"""Discriminators at work: what each is given of a micro-batch, its loss, and the generator's terms.

The step loops over them and knows none by name. A new one is a class that keeps to `Adversary`,
declared together with its network in trainable/networks/registry.py;
`examples/add_discriminator.py` shows it.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from trainable.learning.losses import (
    discriminator_loss,
    feature_loss,
    generator_loss,
    masked_discriminator_loss,
    masked_generator_loss,
    wavlm_discriminator_loss,
    wavlm_generator_loss,
)
from trainable.learning.terms import Generated, Loss, Real
from trainable.networks.registry import LOGGED_ITEMS, Blueprint


class Adversary(Protocol):
    """What the step asks of a discriminator. It is made from a Blueprint and keeps no state.

    Each method is given the network to go through, since that depends on whose weights learn.
    """

    def loss(self, net: Any, real: Real, generated: Generated) -> Loss:
        """Return the discriminator's own loss.

        Args:
            net: the network, perhaps behind DDP's wrapper: it must be called once, as `net(...)`.
            real: what the recording gave.
            generated: what the generator made; without a graph.
        """

    def terms(self, net: Any, real: Real, generated: Generated) -> dict[str, Loss | Tensor]:
        """Return its terms of the generator's sum, unweighted: name of each declared term -> value.

        Args:
            net: the network itself; its weights take no gradient here, and their normalised forms
                are computed once.
            real: what the recording gave.
            generated: what the generator made, with a graph.
        """


class MultiPeriodAdversary:
    """The multi-period discriminator judges waveforms (HiFi-GAN section 2.3)."""

    def __init__(self, blueprint: Blueprint):
        """Nothing in the configuration changes it."""

    def loss(self, net: Any, real: Real, generated: Generated) -> Loss:
        """Return the least-squares loss, with the parts of each sub-discriminator."""
        # real and generated in one call, as DDP's wrapper asks
        real_scores, fake_scores, _, _ = net(real.y, generated.y_hat)
        total, each_r, each_g = discriminator_loss(real_scores, fake_scores)
        return Loss(total, numbered("loss/d_r/", each_r) | numbered("loss/d_g/", each_g))

    def terms(self, net: Any, real: Real, generated: Generated) -> dict[str, Loss | Tensor]:
        """Return the adversarial loss, with its parts, and feature matching."""
        # the real features are a target: they need no graph
        with torch.no_grad():
            _, real_features = net.discriminate(real.y)
        scores, features = net.discriminate(generated.y_hat)
        total, each = generator_loss(scores)
        return {
            "adversarial": Loss(total, numbered("loss/g/", each)),
            "feature_matching": feature_loss(real_features, features),
        }


class WavLMAdversary:
    """The WavLM discriminator judges the hidden states of WavLM (StyleTTS 2)."""

    def __init__(self, blueprint: Blueprint):
        """Nothing in the configuration changes it."""

    def loss(self, net: Any, real: Real, generated: Generated) -> Loss:
        """Return the least-squares loss."""
        return Loss(wavlm_discriminator_loss(net, real.slm, generated.slm))

    def terms(self, net: Any, real: Real, generated: Generated) -> dict[str, Loss | Tensor]:
        """Return the adversarial loss."""
        return {"wavlm_adversarial": wavlm_generator_loss(net, generated.slm)}


class DurationAdversary:
    """The duration discriminator judges durations beside the text (VITS2 section 2.1).

    Real ones are those that the alignment found; generated ones are those of both predictors.
    `train.duration_discriminator_loss` says how the scores of the two are joined: `faithful` adds
    them up and sums over the batch, as the reference trainer does; `corrected` is the mean over
    each predictor's real tokens.
    """

    def __init__(self, blueprint: Blueprint):
        """Read the kind of loss from the configuration."""
        self.corrected = blueprint.train.duration_discriminator_loss == "corrected"

    def loss(self, net: Any, real: Real, generated: Generated) -> Loss:
        """Return the least-squares loss, with its parts per utterance or per predictor."""
        out = generated.out
        # both predictors in one batch, each beside the real durations
        hidden, mask, durations, g = (
            torch.cat([tensor] * 2) for tensor in (out.hidden_x, out.x_mask, out.logw_, out.g)
        )
        real_scores, fake_scores = net(
            hidden, mask, durations, torch.cat([out.logw, out.logw_sdp]), g, generated.tokens
        )
        real_pair = real_scores.chunk(2)
        fake_pair = fake_scores.chunk(2)

        if self.corrected:
            tokens = out.x_mask[:, :, : generated.tokens]
            found = masked_discriminator_loss(real_pair, fake_pair, tokens)
        else:
            found = discriminator_loss(sum_of(real_pair), sum_of(fake_pair))
        total, each_r, each_g = found
        parts = numbered("loss/dur_disc_r/", each_r) | numbered("loss/dur_disc_g/", each_g)
        return Loss(total, parts)

    def terms(self, net: Any, real: Real, generated: Generated) -> dict[str, Loss | Tensor]:
        """Return the adversarial loss, with its parts per utterance or per predictor."""
        # The text and the speaker are read, not learned from here: `judge` detaches them. Real
        # durations give the generator no gradient, so only the predicted ones are judged.
        out = generated.out
        hidden, mask, g = (torch.cat([tensor] * 2) for tensor in (out.hidden_x, out.x_mask, out.g))
        durations = torch.cat([out.logw, out.logw_sdp])
        scores = net.judge(hidden, mask, durations, g, generated.tokens).chunk(2)
        if self.corrected:
            total, each = masked_generator_loss(scores, out.x_mask[:, :, : generated.tokens])
        else:
            total, each = generator_loss(sum_of(scores))
        return {"duration_adversarial": Loss(total, numbered("loss/g/dur_gen_", each))}


def sum_of(scores: Sequence[Tensor]) -> Tensor:
    """Return the sum of both predictors' scores, [B, T, 1] each."""
    first, second = scores
    return first + second


def numbered(prefix: str, values: Iterable[Tensor]) -> dict[str, Tensor]:
    """Return `<prefix>0`, `<prefix>1`, ...: tags for the first LOGGED_ITEMS of a list of losses."""
    values = list(values)[:LOGGED_ITEMS]
    return {f"{prefix}{i}": value for i, value in enumerate(values)}

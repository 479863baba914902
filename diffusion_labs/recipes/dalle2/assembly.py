"""The stages of DALL-E 2 in their order, all or some of them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from diffusion_labs.recipes.dalle2.clip import clip_stage, embeddings_stage
from diffusion_labs.recipes.dalle2.decoder import decoder_stage
from diffusion_labs.recipes.dalle2.prior import prior_stage
from diffusion_labs.recipes.dalle2.sizes import DALLE2Model
from diffusion_labs.recipes.dalle2.upsampler import upsampler_stage
from diffusion_labs.recipes.kinds import described
from diffusion_labs.recipes.latent_diffusion import Images
from diffusion_labs.recipes.stages import Stage, Stages

PARTS = {"clip": "clip", "prior": "prior", "decoder": "decoder", "upsamplers.0": "upsampler"}


class Updates(NamedTuple):
    """How long a stage is trained: updates, and samples for each."""

    steps: int
    batch_size: int


def dalle2_stages(
    dataset: Images,
    sizes: Any,
    *,
    clip: Updates | None = None,
    prior: Updates | None = None,
    decoder: Updates | None = None,
    upsampler: Updates | None = None,
    captions: Sequence[str] = (),
    group_field: str | None = None,
    weights: Sequence[float] | None = None,
    learning_rate: float,
    ema_decay: float = 0.0,
    seed: int,
) -> Stages:
    """The stages for which updates are given, and the embeddings where the prior or the decoder needs them.

    Args:
        dataset: of images with captions.
        sizes: of the parts that are trained: a ``DALLE2Model`` for all, whose parts are then loaded together.
        clip: of CLIP.
        prior: of the prior, which needs a CLIP.
        decoder: of the decoder, which needs a CLIP.
        upsampler: of the upsampler.
        captions: shown in previews of the prior.
        group_field: see ``ContrastiveObjective``.
        weights: how often each sample is seen by CLIP, the prior and the decoder, see ``Batches``.
        learning_rate: the highest learning rate of each.
        ema_decay: of the averaged weights of prior, decoder and upsampler.
        seed: of each.
    """
    how: dict[str, Any] = {"learning_rate": learning_rate, "seed": seed}
    averaged = {**how, "ema_decay": ema_decay}
    weighted = {**averaged, "weights": weights}
    stages: list[Stage] = []
    if clip is not None:
        stages.append(clip_stage(dataset, sizes, **clip._asdict(), **how, group_field=group_field, weights=weights))
    if prior is not None or decoder is not None:
        stages.append(embeddings_stage(dataset, sizes))
    if prior is not None:
        stages.append(prior_stage(dataset, sizes, **prior._asdict(), **weighted, captions=captions))
    if decoder is not None:
        stages.append(decoder_stage(dataset, sizes, **decoder._asdict(), **weighted))
    if upsampler is not None:
        stages.append(upsampler_stage(dataset, sizes, **upsampler._asdict(), **averaged))
    parts = PARTS if isinstance(sizes, DALLE2Model) else {"": stages[-1].name}
    return Stages(stages, described(sizes), parts)

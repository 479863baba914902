"""The diffusion prior of the paper."""

from collections.abc import Callable
from typing import Any, Unpack

import torch
from torch import Tensor, nn

from diffusion_labs.adapters import CFGuidance
from diffusion_labs.models.dalle2.prior import DiffusionPrior, unit_norm
from diffusion_labs.models.encoders import Conditioner
from diffusion_labs.models.ldm.latent_scale import LatentScale
from diffusion_labs.models.transformer import prior_transformer
from diffusion_labs.predictors import TargetPredictor
from diffusion_labs.predictors.predictor import Clamp
from diffusion_labs.samplers import DDPMSampler
from diffusion_labs.samplers.sampler import SamplerOptions
from diffusion_labs.schedules import DiscreteGaussianSchedule, cosine_beta_schedule


def dalle2_prior(
    network: nn.Module | None = None,
    *,
    clip: nn.Module | None = None,
    scale: LatentScale | None = None,
    clamp: Clamp | None = None,
    dropout: float = 0.1,
    guidance_scale: float = 1.0,
    finish: Callable[[Tensor], Tensor] = unit_norm,
    **options: Unpack[SamplerOptions],
) -> DiffusionPrior:
    """Build the diffusion prior (arXiv 2204.06125, section 2.2 and Table 3): 1.2 billion parameters.

    The network predicts the clean embedding, on the cosine schedule. The text and its embedding are dropped together,
    for one sample in ten. The paper samples with the variance of Analytic-DPM; here it is the smaller bound. It gives
    no guidance scale; the default is none.

    Args:
        network: takes ``text`` ``[b, n, e]`` with ``text_mask``, and ``text_embedding`` ``[b, d]``. The paper's, at
            random, if ``None``; one of other sizes is ``prior_transformer(embed_dim=512, dim=768, ...)``.
        clip: encodes captions, the empty one for what is dropped. Without it, what stands for no text is learned.
        scale: of the embeddings; that of the paper, 17.2, if ``None``.
        clamp: of the estimates of the scaled embedding; none if ``None``.
        dropout: probability of dropping the text.
        guidance_scale: see ``CFGuidance``.
        finish: see ``DiffusionPrior``.
        **options: see ``Sampler``; 64 steps by default.

    Raises:
        ValueError: for a network that does not take them.

    Example:
        >>> objective = Objective(transform, dalle2_prior(clip=clip), SimpleLoss(), conditions=["caption"])
    """
    network = prior_transformer() if network is None else network
    shapes: Any = getattr(network, "condition_shapes", {})
    if not {"text", "text_embedding"} <= set(shapes):
        raise ValueError(
            f"network takes {sorted(shapes)}, but must take 'text' and 'text_embedding', as that of prior_transformer"
        )
    widths = {name: shapes[name][-1] for name in ("text", "text_embedding")}
    null = {} if clip is not None else {name: nn.Parameter(torch.zeros(width)) for name, width in widths.items()}
    model = CFGuidance(network, {tuple(widths): dropout}, null=null, guidance_scale=guidance_scale)
    schedule = DiscreteGaussianSchedule(cosine_beta_schedule(1000))
    settings: SamplerOptions = {"eval_steps": 64, **options}
    return DiffusionPrior(
        DDPMSampler(model, schedule, TargetPredictor(schedule, clamp), **settings),
        LatentScale(scale=17.2) if scale is None else scale,
        None if clip is None else Conditioner({"caption": clip}),
        finish=finish,
    )

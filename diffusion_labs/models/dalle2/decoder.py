"""The decoder of DALL-E 2, from embeddings of images to images."""

from typing import Unpack

from torch import nn

from diffusion_labs.adapters import CFGuidance
from diffusion_labs.adapters.cfguidance import Scales
from diffusion_labs.models.adm_unet import adm_unet
from diffusion_labs.models.dalle2.unet_sizes import DALLE2_UNETS
from diffusion_labs.predictors import NoisePredictor, Predictor, StaticClamp
from diffusion_labs.samplers import DDPMSampler, linspace
from diffusion_labs.samplers.sampler import SamplerOptions
from diffusion_labs.schedules import DiscreteGaussianSchedule, cosine_beta_schedule


def dalle2_decoder(
    network: nn.Module | None = None,
    *,
    embedding_dropout: float = 0.1,
    text_dropout: float = 0.5,
    guidance_scale: float | Scales = 3.0,
    predictor: type[Predictor] = NoisePredictor,
    **options: Unpack[SamplerOptions],
) -> DDPMSampler:
    """Build the decoder (arXiv 2204.06125, section 2.1 and Table 3): diffusion of images, given their embedding.

    The embedding is dropped for one sample in ten, the caption for one in two, independently; each is then zeros.
    Both are guided together. The network predicts the noise and the variance, on the cosine schedule, and is trained
    by the hybrid loss. The paper gives no guidance scale; the default is that of GLIDE.

    Args:
        network: takes ``image_embedding`` ``[b, d]``, ``text`` ``[b, n, e]`` with ``text_mask``, and, if it knows it,
            ``text_embedding`` ``[b, d]``, which is dropped with the text. The paper's, at random, if ``None``; one of
            other sizes is ``adm_unet(**(DALLE2_UNETS["decoder"] | {"model_channels": 64}))``.
        embedding_dropout: probability of dropping the embedding.
        text_dropout: probability of dropping the caption.
        guidance_scale: see ``CFGuidance``.
        predictor: what the network predicts; ``VPredictor`` is learnt in fewer updates than the paper's noise.
        **options: see ``Sampler``; 250 steps by default.

    Example:
        >>> loss = DiffusionHybridLoss(SimpleLoss(), VLBLoss(decoder.schedule))
        >>> objective = Objective(transform, decoder, loss, conditions=["image_embedding", "text", "text_mask"])
    """
    network = adm_unet(**DALLE2_UNETS["decoder"]) if network is None else network
    understood: frozenset[str] = getattr(network, "condition_names", None) or frozenset()
    text: str | tuple[str, ...] = ("text", "text_embedding") if "text_embedding" in understood else "text"
    dropout: dict[str | tuple[str, ...], float] = {"image_embedding": embedding_dropout, text: text_dropout}
    model = CFGuidance(network, dropout, guidance_scale=guidance_scale)
    schedule = DiscreteGaussianSchedule(cosine_beta_schedule(1000))
    settings: SamplerOptions = {"eval_steps": 250, "grid": linspace, **options}
    return DDPMSampler(model, schedule, predictor(schedule, clamp=StaticClamp()), **settings)

"""How well images show what their captions say."""

from collections.abc import Sequence

import torch
from torch import Tensor

from diffusion_labs.metrics.classifier import to_float
from diffusion_labs.models.encoders import CLIP
from diffusion_labs.modes import evaluating


@torch.no_grad()
def clip_score(images: Tensor, captions: Sequence[str], clip: CLIP, *, batch_size: int = 64) -> Tensor:
    """``100 max(cos(image, caption), 0)`` of CLIP's embeddings, of each image with its own caption: ``[n]``.

    The score of CLIPScore (arXiv 2104.08718, Eq. 1) is a fortieth of it, 2.5 times the cosine. It is comparable only
    with scores of the same CLIP. A model that was trained on the embeddings of this CLIP, as DALL-E 2 is, pleases it
    more than people: measure it with another one.

    Args:
        images: ``[n, c, h, w]``, uint8, or float in [-1, 1].
        captions: one for each image.
        clip: what embeds both.
        batch_size: images at once.

    Raises:
        ValueError: if there are not as many captions as images, or none.
    """
    if len(images) != len(captions) or not captions:
        raise ValueError(f"got {len(images)} images and {len(captions)} captions; give one caption for each image")
    scores = []
    with evaluating(clip):
        for first in range(0, len(images), batch_size):
            chosen = slice(first, first + batch_size)
            image = clip.encode_image(to_float(images[chosen]).to(next(iter(clip.parameters())).device))
            text = clip.encode_text(list(captions[chosen])).embedding
            scores.append(100 * torch.cosine_similarity(image, text).clamp(min=0).cpu())
    return torch.cat(scores)

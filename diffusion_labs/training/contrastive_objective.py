"""What the training of CLIP minimises."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn

from diffusion_labs.training.base_objective import BaseObjective
from diffusion_labs.training.gather import gathered, padded_alike
from diffusion_labs.training.metric_means import MetricMeans

LARGEST = 100.0  # factor of the similarities


class ContrastiveObjective(BaseObjective):
    """The symmetric cross-entropy of CLIP (arXiv 2103.00020, section 2.3), where several pairs may be positives.

    With ``l_ij = exp(scale) <image_i, text_j>`` and P(i) the texts that belong to image i, it is the mean over i of
    ``-1 / |P(i)| sum_{j in P(i)} log softmax_j(l_ij)``, and likewise from texts to images, of both the mean. Captions
    repeat in a batch, and those that are equal to an image's own are not wrong ones; that is the supervised contrastive
    loss (arXiv 2004.11362, Eq. 2). Where all differ it is the loss of CLIP.

    The factor ``exp(scale)`` is at most 100, as in the paper. The pairs of a distributed run are those of all
    processes, of which each must have as many. Each gives the loss of its own images and texts among all; the mean
    over the processes is the loss of the whole batch.

    Args:
        clip: has ``encode_image``, ``encode_text``, ``tokenize`` and ``logit_scale``.
        transform: from the batch to one with images in [-1, 1]; nothing by default.
        image_field: images to read.
        caption_field: captions to read, a list of texts or their tokens ``[b, n]``; tokens under ``torch.compile``.
        group_field: of pairs with the same value here every image belongs to every text, for example the class; of
            those with the same caption if ``None``.

    Raises:
        ValueError: if all of ``clip`` is frozen, so that there is nothing to train.
    """

    clip: Any  # a CLIP: the type is not imported, as training knows no concrete component

    def __init__(
        self,
        clip: nn.Module,
        *,
        transform: Callable[[dict[str, Any]], Mapping[str, Any]] | None = None,
        image_field: str = "x",
        caption_field: str = "caption",
        group_field: str | None = None,
    ) -> None:
        super().__init__()
        if not any(parameter.requires_grad for parameter in clip.parameters()):
            raise ValueError(
                "all parameters of clip are frozen, so the loss has no gradient; build it with frozen=False, or call "
                "requires_grad_() of what is to be trained"
            )
        self.clip = clip
        self.transform = nn.Identity() if transform is None else transform
        self.image_field = image_field
        self.caption_field = caption_field
        self.group_field = group_field
        self.means = MetricMeans(["accuracy"])

    def forward(self, batch: dict[str, Any]) -> Tensor:
        """The loss of a batch, float32 or better.

        Raises:
            KeyError: naming the field that is missing from the transformed batch.
            ValueError: unless there is a caption for each image, and the groups are a tensor.
        """
        data = self.transform(batch)
        group_field = self.caption_field if self.group_field is None else self.group_field
        wanted = dict.fromkeys((self.image_field, self.caption_field, group_field))
        missing = [name for name in wanted if name not in data]
        if missing:
            raise KeyError(f"the transformed batch lacks {missing}; it has {sorted(data)}")
        x, captions = data[self.image_field], data[self.caption_field]
        ids = captions if isinstance(captions, Tensor) else self.clip.tokenize(captions).to(x.device)
        group = ids if self.group_field is None else data[group_field]
        if not isinstance(group, Tensor) or not len(x) == len(ids) == len(group):
            raise ValueError(
                f"there are {len(x)} images, {len(ids)} captions and {len(group)} groups, of type "
                f"{type(group).__name__}; give as many of each, and the groups as a tensor, such as that of the classes"
            )

        image, text = self.clip.encode_image(x), self.clip.encode_text(ids).embedding
        dtype = torch.promote_types(image.dtype, torch.float32)
        factor, image, text = self.clip.logit_scale.to(dtype).exp(), image.to(dtype), text.to(dtype)
        of_images, of_texts = (
            factor * own @ gathered(other, self.peers).mT for own, other in ((image, text), (text, image))
        )
        rows = padded_alike(group.reshape(len(group), -1))
        same = equal_rows(rows, gathered(rows, self.peers))
        self.means.add({"accuracy": same.gather(1, of_images.argmax(1, keepdim=True)).to(dtype).mean()})
        return contrastive_loss(of_images, of_texts, same)

    @torch.no_grad()
    def after_update(self, step: int) -> None:
        """Keep the factor of the similarities in its bound."""
        self.clip.logit_scale.clamp_(max=math.log(LARGEST))

    def metrics(self) -> dict[str, Tensor]:
        """The share of images whose most similar text of the batch is one of theirs."""
        return self.means.take()


def contrastive_loss(
    of_images: Float[Tensor, "b n"], of_texts: Float[Tensor, "b n"], same: Bool[Tensor, "b n"]
) -> Float[Tensor, ""]:
    """The mean cross-entropy of the rows of both, with the positives of each as equally probable.

    Args:
        of_images: logits of a text for each image.
        of_texts: logits of an image for each text.
        same: which of them belong together.
    """
    wanted = same.to(of_images.dtype) / same.sum(1, keepdim=True)
    return (F.cross_entropy(of_images, wanted) + F.cross_entropy(of_texts, wanted)) / 2


def equal_rows(values: Shaped[Tensor, "b d"], others: Shaped[Tensor, "n d"]) -> Bool[Tensor, "b n"]:
    """Which rows are equal to which."""
    return (values[:, None] == others[None]).all(2)

"""From images to their embeddings, as a transform."""

from typing import Any

import torch
from torch import nn

from diffusion_labs.models.ldm.latent_scale import LatentScale
from diffusion_labs.transforms.transform import Batch, Transform


class EncodeEmbeddings(Transform):
    """Replaces images by their embeddings, scaled for diffusion: ``scale.normalize(clip.encode_image(x))``.

    A batch that has the embeddings, stored once, needs no images, and costs no encoder.

    Args:
        clip: encodes images; see ``CLIP``. It is used as it is, without gradients, and stays in eval mode.
        scale: of the embeddings; as they are if ``None``.
        data_field: images to read, and scaled embeddings to write.
        image_field: where the images are kept; nowhere if ``None``.
        embedding_field: embeddings as CLIP has them, to read where they are stored, and to write.
    """

    clip: Any  # a CLIP

    def __init__(
        self,
        clip: nn.Module,
        scale: LatentScale | None = None,
        *,
        data_field: str = "x",
        image_field: str | None = None,
        embedding_field: str = "image_embedding",
    ) -> None:
        super().__init__()
        self.clip = clip.eval()
        self.scale = LatentScale() if scale is None else scale
        self.data_field = data_field
        self.image_field = image_field
        self.embedding_field = embedding_field

    def train(self, mode: bool = True) -> "EncodeEmbeddings":
        """Train mode is not CLIP's."""
        super().train(mode)
        self.clip.train(False)
        return self

    @torch.no_grad()
    def forward(self, batch: Batch) -> dict[str, Any]:
        """See the class."""
        if self.embedding_field in batch:
            z = self.field(batch, self.embedding_field)
        else:
            z = self.clip.encode_image(self.field(batch, self.data_field))
        kept = {} if self.image_field is None else {self.image_field: self.field(batch, self.data_field)}
        return {**batch, **kept, self.embedding_field: z, self.data_field: self.scale.normalize(z)}

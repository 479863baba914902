"""From captions to the states of their tokens, as a transform."""

from typing import Any

import torch
from torch import nn

from diffusion_labs.transforms.transform import Batch, Transform


class EncodeCaptions(Transform):
    """Adds what a CLIP says of captions, for a decoder to attend to: ``text``, and the mask of its tokens.

    Args:
        clip: encodes texts; see ``CLIP``. It is used as it is, without gradients, and stays in eval mode.
        caption_field: texts, or their tokens, to read.
        text_field: states of the tokens to write, ``[b, n, e]``.
        mask_field: which of them are tokens and no padding, to write: bool ``[b, n]``.

    Example:
        >>> batch = EncodeCaptions(clip)({"x": images, "caption": captions})
        >>> batch["text"].shape[:2] == batch["text_mask"].shape
        True
    """

    clip: Any  # a CLIP

    def __init__(
        self,
        clip: nn.Module,
        *,
        caption_field: str = "caption",
        text_field: str = "text",
        mask_field: str = "text_mask",
    ) -> None:
        super().__init__()
        self.clip = clip.eval()
        self.caption_field = caption_field
        self.text_field = text_field
        self.mask_field = mask_field

    def train(self, mode: bool = True) -> "EncodeCaptions":
        """Train mode is not CLIP's."""
        super().train(mode)
        self.clip.train(False)
        return self

    @torch.no_grad()
    def forward(self, batch: Batch) -> dict[str, Any]:
        """See the class."""
        _, states, mask = self.clip.encode_text(self.given(batch, self.caption_field))
        return {**batch, self.text_field: states, self.mask_field: mask}

"""Several encodings of one text, side by side."""

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor, nn

from diffusion_labs.conditioning import mask_of
from diffusion_labs.models.encoders.text_encoder import TextEncoder, Texts


class ConcatTextEncoder(TextEncoder):
    """What several text encoders give under one name, joined on the feature axis; other names pass as they are.

    ``text = [text_1, text_2, ...]``, ``[b, n, d_1 + d_2 + ...]``: the two encoders of Stable Diffusion XL (arXiv
    2307.01952, section 2.1), of which the second gives its pooled output, too. Tokens are ``[b, e, n]``, those of each
    of the e encoders by its own tokenizer. They must be as many in all of them, as CLIP's are.

    Args:
        encoders: in this order.

    Raises:
        ValueError: if there is no encoder, or one that joins has a mask: the padding of another may differ.

    Example:
        >>> small, large = CLIPTextEncoder(model, words), CLIPTextEncoder(model_2, words_2, pooled_name="pooled_text")
        >>> ConcatTextEncoder([small, large]).names
        ('text', 'pooled_text')
    """

    def __init__(self, encoders: Sequence[TextEncoder]) -> None:
        super().__init__()
        if not encoders:
            raise ValueError("encoders is empty; give at least one")
        names = [name for encoder in encoders for name in encoder.names]
        masked = sorted(name for name in names if names.count(name) > 1 and mask_of(name) in names)
        if masked:
            raise ValueError(
                f"encoders give {masked[0]!r} and {mask_of(masked[0])!r}; only tokens without a mask can be joined on "
                "the feature axis: name them differently, and the network takes both"
            )
        self.encoders = nn.ModuleList(encoders)
        self.names = tuple(dict.fromkeys(names))

    def tokenize(self, texts: Texts) -> Int[Tensor, "b e n"]:
        """The tokens of texts, by each encoder.

        Raises:
            ValueError: if the encoders differ in how many they are.
        """
        ids = [encoder.tokenize(texts) for encoder in self.encoders]  # type: ignore[operator]
        lengths = [each.shape[1] for each in ids]
        if len(set(lengths)) > 1:
            raise ValueError(
                f"the encoders have {lengths} tokens for these texts, but are joined token by token; give encoders "
                "that pad to one length"
            )
        return torch.stack(ids, dim=1)

    def encode(self, ids: Int[Tensor, "b e n"]) -> dict[str, Tensor]:
        """The encodings, joined."""
        parts: dict[str, list[Tensor]] = {}
        for i, encoder in enumerate(self.encoders):
            for name, value in encoder.encode(ids[:, i]).items():  # type: ignore[operator]
                parts.setdefault(name, []).append(value)
        return {name: torch.cat(values, dim=-1) for name, values in parts.items()}

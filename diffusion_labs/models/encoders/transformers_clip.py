"""The CLIP models of the library transformers."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from diffusion_labs.models.encoders.byte_tokenizer import ByteTokenizer
from diffusion_labs.models.encoders.clip import EncodedText
from diffusion_labs.models.encoders.pretrained_text_encoder import PretrainedTextEncoder
from diffusion_labs.models.encoders.text_encoder import Texts, encode_distinct
from diffusion_labs.models.encoders.tokenizer import import_transformers, up_to_end

# Of the pixels in [0, 1] of CLIP's training data, as all its models are told
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


class TransformersCLIP(PretrainedTextEncoder):
    """CLIP (arXiv 2103.00020) as two encoders: of images, and of texts to all that DALL-E 2 is told of them.

    Called on texts, or as the encoder of a ``Conditioner``, it gives ``text``, ``text_mask`` and ``text_embedding``:
    the states of the last layer up to the end of the text, and the projection of the last of them, of length 1.

    Args:
        model: ``CLIPModel`` of transformers.
        tokenizer: likewise, or ``ByteTokenizer``; without one only tokens can be encoded.
        mean: of the pixels in [0, 1], for each channel; those of OpenAI's models by default.
        std: their standard deviation, likewise.
        frozen: whether the model gets no gradients and stays in eval mode.

    Raises:
        ValueError: unless mean and standard deviation are of as many channels as the model has.

    Example:
        >>> clip = TransformersCLIP.from_pretrained("openai/clip-vit-large-patch14")
        >>> similarity = clip.encode_image(images) @ clip.encode_text(["a cat", "a dog"]).embedding.T
    """

    model_class = "CLIPModel"
    model: Any
    empty_text: Tensor | None

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any = None,
        *,
        mean: Sequence[float] = MEAN,
        std: Sequence[float] = STD,
        frozen: bool = True,
    ) -> None:
        config: Any = model.config
        super().__init__(
            model,
            tokenizer,
            names=("text", "text_mask", "text_embedding"),
            max_length=config.text_config.max_position_embeddings,
            frozen=frozen,
        )
        channels = config.vision_config.num_channels
        if not len(mean) == len(std) == channels:
            raise ValueError(
                f"mean ({mean}) and std ({std}) must have a number for each of the model's {channels} channels"
            )
        self.mean = tuple(mean)
        self.std = tuple(std)
        # Once, as tokenizers cannot be compiled
        self.register_buffer("empty_text", None if tokenizer is None else self.tokenize([""]), persistent=False)

    @property
    def embed_dim(self) -> int:
        """Width of the embeddings."""
        width: int = self.model.config.projection_dim
        return width

    @property
    def logit_scale(self) -> Tensor:
        """The logarithm of the factor of similarities in training."""
        parameter: Any = self.model.logit_scale
        return parameter.to_local() if hasattr(parameter, "to_local") else parameter  # of FSDP2

    def null(self) -> Tensor | Texts:
        """The tokens of the empty text."""
        return super().null() if self.empty_text is None else self.empty_text

    def encode_image(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        """The embeddings, of length 1, of images in [-1, 1] of any size; see ``pixels``."""
        output = self.model.vision_model(pixel_values=self.pixels(x))
        return F.normalize(self.model.visual_projection(output.pooler_output), dim=1)

    def encode_text(self, texts: Tensor | Texts) -> EncodedText:
        """Of texts, each distinct one encoded once, or of their tokens."""
        encoded = self(texts) if isinstance(texts, Tensor) else encode_distinct(self, texts)
        return EncodedText(encoded["text_embedding"], encoded["text"], encoded["text_mask"])

    def encode(self, ids: Int[Tensor, "b n"]) -> dict[str, Tensor]:
        """The states, their mask, and the embedding."""
        output = self.model.text_model(input_ids=ids)
        embedding = F.normalize(self.model.text_projection(output.pooler_output), dim=1)
        return dict(zip(self.names, (output.last_hidden_state, self.valid(ids), embedding), strict=True))

    def valid(self, ids: Int[Tensor, "b n"]) -> Bool[Tensor, "b n"]:
        """Which tokens are not padding, see ``up_to_end``."""
        return up_to_end(ids, self.model.config.text_config.eos_token_id)

    def pixels(self, x: Float[Tensor, "b c h w"]) -> Tensor:
        """What the model takes: the central square of images, resized, ``(x' - mean) / std`` with x' in [0, 1].

        Bicubic with antialiasing, as the images that CLIP was trained on. Grey images get as many channels as it has.

        Raises:
            ValueError: for another number of channels, or integers.
        """
        config = self.model.config.vision_config
        size, channels = config.image_size, config.num_channels
        if x.ndim != 4 or x.shape[1] not in (1, channels):
            raise ValueError(
                f"images have shape {list(x.shape)}, but this CLIP takes [b, c, h, w] with {channels} channels, or 1 "
                "for grey ones"
            )
        if not x.is_floating_point():
            raise ValueError(f"images have dtype {x.dtype}, but must be in [-1, 1]; normalise them (NormalizeImages)")
        dtype = self.model.visual_projection.weight.dtype
        x = (x.to(torch.promote_types(x.dtype, torch.float32)) + 1) / 2

        shorter = min(x.shape[2:])
        if shorter != size:
            sides = [size * side // shorter for side in x.shape[2:]]
            x = F.interpolate(x, sides, mode="bicubic", antialias=True).clamp(0, 1)
        top, left = ((side - size) // 2 for side in x.shape[2:])
        x = x[:, :, top : top + size, left : left + size].expand(-1, channels, -1, -1)

        mean, std = (
            torch.tensor(value, dtype=x.dtype, device=x.device)[:, None, None] for value in (self.mean, self.std)
        )
        return ((x - mean) / std).to(dtype)


def small_clip(
    *,
    image_size: int = 32,
    in_channels: int = 1,
    patch_size: int = 4,
    embed_dim: int = 64,
    image_dim: int = 96,
    image_depth: int = 3,
    text_dim: int = 64,
    text_depth: int = 2,
    num_heads: int = 4,
    tokenizer: Any = None,
    max_tokens: int = 64,
    frozen: bool = False,
) -> TransformersCLIP:
    """A small CLIP with random weights, to be trained by ``ContrastiveObjective``.

    Args:
        image_size: pixels a side of the images that it sees; others are resized.
        in_channels: channels of the images.
        patch_size: pixels a side of a patch.
        embed_dim: width of the embeddings.
        image_dim: width of the Transformer of images.
        image_depth: its blocks.
        text_dim: width of the Transformer of texts.
        text_depth: its blocks.
        num_heads: heads of both.
        tokenizer: of transformers, such as ``bpe_tokenizer``; ``ByteTokenizer`` if ``None``.
        max_tokens: longer texts are cut.
        frozen: see ``TransformersCLIP``.

    Raises:
        ImportError: without the package ``transformers``.

    Example:
        >>> clip = small_clip(image_size=8)
        >>> clip.encode_image(torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 64])
    """
    transformers = import_transformers("small_clip")
    tokenizer = ByteTokenizer() if tokenizer is None else tokenizer
    text = {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "max_position_embeddings": max_tokens,
    }
    image = {"image_size": image_size, "patch_size": patch_size, "num_channels": in_channels}
    config = transformers.CLIPConfig(
        text_config={**text, **_widths(text_dim, text_depth, num_heads, embed_dim)},
        vision_config={**image, **_widths(image_dim, image_depth, num_heads, embed_dim)},
        projection_dim=embed_dim,
    )
    middle = (0.5,) * in_channels
    return TransformersCLIP(transformers.CLIPModel(config), tokenizer, mean=middle, std=middle, frozen=frozen)


def _widths(dim: int, depth: int, num_heads: int, embed_dim: int) -> dict[str, int]:
    return {
        "hidden_size": dim,
        "intermediate_size": 4 * dim,
        "num_hidden_layers": depth,
        "num_attention_heads": num_heads,
        "projection_dim": embed_dim,
    }

"""The Transformer that takes everything as tokens and has long skip connections."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from diffusion_labs.conditioning import ConditionalInputs, mask_of
from diffusion_labs.layers import (
    ClassCondition,
    Context,
    EncoderBlock,
    ProjectedTokenCondition,
    VectorTokens,
    check_names,
    concatenate,
    entry_name,
    sinusoidal_embedding,
)
from diffusion_labs.models.transformer.heads import to_pixels
from diffusion_labs.models.transformer.network import PatchTransformer
from diffusion_labs.output import DiffusionOutput


class TokenSequence(nn.Module):
    """One sequence of the classes, the time, vectors, texts and patches, with learned positions.

    The time is the token of its sinusoids. An absent condition is null or zeros, and has its place in the sequence.
    U-ViT, arXiv 2209.12152, section 3.

    Args:
        dim: width of the tokens.
        num_patches: the number of patches.
        classes: the number of classes by name, see ``ClassCondition``; each is a token.
        vectors: width by name; each is a token.
        tokens: width by name, see ``TokenCondition``.
        num_tokens: the most tokens of each token condition.
        time_scale: see ``sinusoidal_embedding``.

    Attributes:
        null_conditions: the index of the null class, by name.
        condition_shapes: the shape of one sample's condition, by name; ``None`` is any number of tokens.
        condition_names: the names of all inputs.

    Raises:
        ValueError: if two conditions share a name, or a name cannot be that of a submodule.
    """

    def __init__(
        self,
        dim: int,
        num_patches: int,
        *,
        classes: Mapping[str, int],
        vectors: Mapping[str, int],
        tokens: Mapping[str, int],
        num_tokens: int = 77,
        time_scale: float = 1.0,
    ) -> None:
        super().__init__()
        names = [*classes, *vectors, *tokens, *map(mask_of, tokens)]
        check_names(names)
        self.null_conditions = dict(classes)
        self.condition_shapes: dict[str, tuple[int | None, ...]] = {
            **dict.fromkeys(classes, ()),
            **{name: (width,) for name, width in vectors.items()},
            **{name: (None, width) for name, width in tokens.items()},
        }
        self.condition_names = frozenset(names)
        self.num_tokens = num_tokens
        self.time_scale = time_scale
        self.classes = nn.ModuleDict(
            {entry_name(name): ClassCondition(name, number, dim) for name, number in classes.items()}
        )
        self.vectors = nn.ModuleDict(
            {entry_name(name): VectorTokens(name, width, 1, dim) for name, width in vectors.items()}
        )
        self.tokens = nn.ModuleDict({name: ProjectedTokenCondition(name, w, dim) for name, w in tokens.items()})
        self.lengths = [1] * (len(classes) + 1 + len(vectors)) + [num_tokens] * len(tokens) + [num_patches]
        self.positions = nn.Parameter(torch.zeros(sum(self.lengths), dim))

    def forward(self, h: Tensor, timestep: Tensor, conditions: ConditionalInputs) -> tuple[Tensor, Tensor | None]:
        """The sequence ``[b, n, dim]`` with the patches h at its end, and which of its tokens are valid if not all."""
        time = sinusoidal_embedding(timestep, h.shape[2], scale=self.time_scale, dtype=h.dtype).to(h.dtype)
        texts = {name: condition(conditions, timestep) for name, condition in self.tokens.items()}
        for name, (text, _, _) in texts.items():
            if text.shape[1] > self.num_tokens:
                raise ValueError(
                    f"{name!r} has {text.shape[1]} tokens, but the network has positions for {self.num_tokens}; cut "
                    "them, or build it with larger num_tokens"
                )
        contexts = [
            *(Context(condition(conditions, timestep)[:, None], None) for condition in self.classes.values()),
            Context(time[:, None], None),
            *(condition(conditions, timestep) for condition in self.vectors.values()),
            *texts.values(),
            Context(h, None),
        ]
        own = zip(self.positions.split(self.lengths), contexts, strict=True)
        positions = torch.cat([vectors[: context.tokens.shape[1]] for vectors, context in own])
        sequence, mask, _ = concatenate(contexts)
        return sequence + positions, mask


class PixelHead(nn.Module):
    """From tokens to the prediction: ``out(pixels(linear(norm(h))))``.

    Args:
        dim: width of the tokens.
        out_channels: channels of the prediction.
        patch_size: the side of a patch.
        out: of the pixels; a convolution of the U-ViT, which smooths over the edges of patches.
        eps: added to the variance by the norm.
    """

    def __init__(self, dim: int, out_channels: int, *, patch_size: int, out: nn.Module, eps: float = 1e-5) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.norm = nn.LayerNorm(dim, eps=eps)
        self.linear = nn.Linear(dim, patch_size**2 * out_channels)
        self.out = out

    def forward(self, h: Tensor, grid: tuple[int, int], dtype: torch.dtype) -> DiffusionOutput:
        """Project tokens ``[b, n, dim]`` of a grid of patches to an output of the given dtype."""
        return DiffusionOutput(self.out(to_pixels(self.linear(self.norm(h)), grid, self.patch_size)).to(dtype))


class UViT(PatchTransformer):
    """U-ViT (arXiv 2209.12152), built from its parts; ``uvit`` builds it from sizes.

    The time, the conditions and the patches of x are tokens of one sequence. The output of the i-th block also goes to
    the i-th from the end. The input is cast to the dtype of the weights, and the output has the dtype of the input.

    It also takes the conditional input ``identity_attention``, bool ``[b, depth]``: for which samples the attention of
    which blocks is the identity; see ``PerturbedAttentionGuidance``.

    Args:
        patches: the convolution from patches to tokens; its stride is the size of a patch.
        sequence: from these tokens, the time and the conditions to one sequence.
        grid: the number of patches in a column and in a row of x.
        blocks: an odd number: the shallow ones, the middle one, and as many deep ones, which take a skip connection.
        head: from tokens to the output.
        checkpointing: in train mode, recompute each block in the backward pass: less memory, more time.

    Attributes:
        attention_blocks: the names of the attentions, from the first to the last.
        null_conditions: the index of the null class of each class condition, for classifier-free guidance.
        condition_shapes: the shape of one sample's condition, by name; ``None`` is any number of tokens.

    Raises:
        ValueError: for an even number of blocks.
    """

    grid: tuple[int, int]

    def __init__(
        self,
        patches: nn.Conv2d,
        sequence: TokenSequence,
        grid: tuple[int, int],
        blocks: Sequence[EncoderBlock],
        head: PixelHead,
        *,
        checkpointing: bool = False,
    ) -> None:
        super().__init__(sequence.condition_names, patches, blocks, grid=grid, checkpointing=checkpointing)
        if len(blocks) % 2 == 0:
            raise ValueError(
                f"depth ({len(blocks)}) must be odd: as many deep blocks as shallow ones, and a middle one"
            )
        self.sequence = sequence
        self.head = head
        self.null_conditions = sequence.null_conditions
        self.condition_shapes = sequence.condition_shapes

    def forward(
        self, x: Tensor, timestep: Tensor, conditional_inputs: ConditionalInputs | None = None
    ) -> DiffusionOutput:
        """Predict.

        Args:
            x: noisy data ``[b, in_channels, height, width]``, of the size that the network was built for.
            timestep: the time of each sample, integer or floating, ``[b]``.
            conditional_inputs: any subset of the conditions that the network was built for.

        Returns:
            The prediction, ``[b, out_channels, height, width]``.

        Raises:
            ValueError: for an input of the wrong shape or dtype, or an unknown condition.
        """
        conditions, identities = self.check_inputs(x, timestep, conditional_inputs)

        # Embed
        patches, grid = self.tokens(x)
        h, mask = self.sequence(patches, timestep, conditions)

        # Transform
        blocks, half = list(zip(self.blocks, identities, strict=True)), len(self.blocks) // 2
        skips: list[Tensor] = []
        for block, identity in blocks[:half]:
            h = self.run(block, h, mask, identity)
            skips.append(h)
        block, identity = blocks[half]
        h = self.run(block, h, mask, identity)
        for (block, identity), skip in zip(blocks[half + 1 :], reversed(skips), strict=True):
            h = self.run(block, h, skip, mask, identity)

        # Project
        return self.head(h[:, -patches.shape[1] :], grid, x.dtype)

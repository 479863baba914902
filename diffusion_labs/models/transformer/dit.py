"""The diffusion Transformer."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from diffusion_labs.conditioning import ConditionalInputs, ConditionalModule, check_identity
from diffusion_labs.layers import ModulatedTransformerBlock, modulate, modulation, zero_init
from diffusion_labs.models.transformer.embedding import TimeClassEmbedding
from diffusion_labs.output import DiffusionOutput


class PatchHead(nn.Module):
    """``linear(norm(h) * (1 + scale) + shift)`` from tokens to the patches of the prediction.

    Shift and scale are linear in ``SiLU(embedding)``; all starts at zero. DiT, arXiv 2212.09748, section 3.2.

    Args:
        dim: width of the tokens.
        out_channels: channels of the prediction.
        patch_size: the side of a patch.
        embed_dim: width of the embedding.
        eps: added to the variance by the norm.
    """

    def __init__(self, dim: int, out_channels: int, *, patch_size: int, embed_dim: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.modulation = modulation(embed_dim, dim, 2)
        self.norm = nn.LayerNorm(dim, eps=eps, elementwise_affine=False)
        self.linear = zero_init(nn.Linear(dim, patch_size**2 * out_channels))

    def forward(self, h: Tensor, embedding: Tensor, grid: tuple[int, int], dtype: torch.dtype) -> DiffusionOutput:
        """Project tokens ``[b, n, dim]`` of a grid of patches to an output of the given dtype."""
        return DiffusionOutput(self.project(h, embedding, grid).to(dtype))

    def project(self, h: Tensor, embedding: Tensor, grid: tuple[int, int]) -> Tensor:
        shift, scale = self.modulation(embedding).chunk(2, dim=1)
        patches = self.linear(modulate(self.norm(h), shift, scale))
        # [b, rows, columns, p, p, c], the channel fastest, to an image
        side = self.patch_size
        pixels = patches.reshape(len(h), *grid, side, side, -1).permute(0, 5, 1, 3, 2, 4)
        return pixels.reshape(len(h), -1, grid[0] * side, grid[1] * side)


class LearnedVariancePatchHead(PatchHead):
    """A head that also predicts the variance: ``variance_value = (v_raw + 1) / 2``.

    ``v_raw`` in [-1, 1], the second half of the channels, interpolates the log-variance between its bounds (Improved
    DDPM, arXiv 2102.09672, Eq. 15).

    Args:
        dim: see ``PatchHead``.
        out_channels: channels of the prediction; the linear layer has twice as many.
        patch_size: see ``PatchHead``.
        embed_dim: see ``PatchHead``.
        eps: see ``PatchHead``.
    """

    def __init__(self, dim: int, out_channels: int, *, patch_size: int, embed_dim: int, eps: float = 1e-6) -> None:
        super().__init__(dim, 2 * out_channels, patch_size=patch_size, embed_dim=embed_dim, eps=eps)

    def forward(self, h: Tensor, embedding: Tensor, grid: tuple[int, int], dtype: torch.dtype) -> DiffusionOutput:
        """Project tokens ``[b, n, dim]`` of a grid of patches to an output of the given dtype."""
        prediction, v_raw = self.project(h, embedding, grid).chunk(2, dim=1)
        # FSDP2's hooks are lost on outputs that are views and then changed in place: hence the clone
        return DiffusionOutput(prediction.clone().to(dtype), variance_value=((v_raw + 1) / 2).to(dtype))


class DiT(ConditionalModule):
    """The diffusion Transformer (DiT, arXiv 2212.09748), built from its parts; ``dit`` builds it from sizes.

    Patches of x are tokens; the time and the classes modulate every block. The input is cast to the dtype of the
    weights, and the output has the dtype of the input.

    It also takes the conditional input ``identity_attention``, bool ``[b, depth]``: for which samples the attention of
    which blocks is the identity; see ``PerturbedAttentionGuidance``.

    Args:
        patches: the convolution from patches to tokens; its stride is the size of a patch.
        positions: the vectors of the positions, ``[rows * columns, dim]``. They are stored, and not trained.
        grid: the number of patches in a column and in a row of x.
        embeddings: one for all blocks, or one for each; the head has the first.
        blocks: the Transformer.
        head: from tokens to the output.
        checkpointing: in train mode, recompute each block in the backward pass: less memory, more time.

    Attributes:
        attention_blocks: the names of the attentions, from the first to the last.

    Raises:
        ValueError: if the numbers of embeddings and blocks do not fit, or those of positions and patches.
    """

    def __init__(
        self,
        patches: nn.Conv2d,
        positions: Tensor,
        grid: tuple[int, int],
        embeddings: Sequence[TimeClassEmbedding],
        blocks: Sequence[ModulatedTransformerBlock],
        head: PatchHead,
        *,
        checkpointing: bool = False,
    ) -> None:
        super().__init__({*embeddings[0].null_conditions, "identity_attention"})
        if len(embeddings) not in (1, len(blocks)):
            raise ValueError(f"embeddings has {len(embeddings)} entries, but must have 1, or {len(blocks)} as blocks")
        if len(positions) != grid[0] * grid[1]:
            raise ValueError(f"positions has {len(positions)} rows, but must have {grid[0] * grid[1]}: one for a patch")
        self.grid = grid
        self.checkpointing = checkpointing
        self.patches = patches
        self.positions = nn.Parameter(positions, requires_grad=False)
        self.embeddings = nn.ModuleList(embeddings)
        self.blocks = nn.ModuleList(blocks)
        self.head = head
        self.attention_blocks = tuple(f"blocks.{i}.attention" for i in range(len(blocks)))

    @property
    def null_conditions(self) -> dict[str, int]:
        """The index of the null class of each class condition, for classifier-free guidance."""
        first: TimeClassEmbedding = self.embeddings[0]  # type: ignore[assignment]
        return dict(first.null_conditions)

    @property
    def condition_shapes(self) -> dict[str, tuple[int | None, ...]]:
        """The shape of one sample's condition, by name."""
        return dict.fromkeys(self.null_conditions, ())

    def forward(
        self, x: Tensor, timestep: Tensor, conditional_inputs: ConditionalInputs | None = None
    ) -> DiffusionOutput:
        """Predict.

        Args:
            x: noisy data ``[b, in_channels, height, width]``, of the size that the network was built for.
            timestep: the time of each sample, integer or floating, ``[b]``.
            conditional_inputs: any subset of the classes that the network was built for.

        Returns:
            The prediction, ``[b, out_channels, height, width]``, and the variance value if it is learned.

        Raises:
            ValueError: for an input of the wrong shape or dtype, or an unknown condition.
        """
        conditions = self.check_conditions(conditional_inputs, x)
        self._check(x, timestep)
        identity = conditions.get("identity_attention")
        if identity is not None:
            check_identity(identity, self.attention_blocks)

        # Embed
        h = self.patches(x.to(self.patches.weight.dtype)).flatten(2).mT + self.positions
        embeddings = [embedding(timestep, conditions) for embedding in self.embeddings]

        # Transform
        for i, block in enumerate(self.blocks):
            arguments = (h, embeddings[i % len(embeddings)], None if identity is None else identity[:, i])
            if self.checkpointing and self.training:  # torch.func, with which adapters guide, cannot pass through it
                h = checkpoint(block, *arguments, use_reentrant=False)
            else:
                h = block(*arguments)

        # Project
        return self.head(h, embeddings[0], self.grid, x.dtype)

    def _check(self, x: Tensor, timestep: Tensor) -> None:
        side = self.head.patch_size
        expected = [self.patches.in_channels, *(side * patches for patches in self.grid)]
        if list(x.shape[1:]) != expected:
            raise ValueError(
                f"x has shape {list(x.shape)}, but must be {[len(x), *expected]}; build the network with other "
                "in_channels or size, or check what adapters concatenate to x"
            )
        if not x.dtype.is_floating_point:
            raise ValueError(f"x has dtype {x.dtype}, but must be floating point; use .float()")
        if timestep.dim() != 1 or timestep.shape[0] != x.shape[0]:
            raise ValueError(
                f"timestep has shape {list(timestep.shape)}, but must be [{x.shape[0]}]: one time for each "
                "sample of x; use timestep.expand"
            )

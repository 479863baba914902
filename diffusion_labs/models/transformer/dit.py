"""The diffusion Transformer."""

from collections.abc import Sequence

from torch import Tensor, nn

from diffusion_labs.conditioning import ConditionalInputs
from diffusion_labs.layers import ConditionEmbedding, ModulatedTransformerBlock
from diffusion_labs.models.transformer.heads import PatchHead
from diffusion_labs.models.transformer.network import PatchTransformer
from diffusion_labs.output import DiffusionOutput


class DiT(PatchTransformer):
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
        null_conditions: the index of the null class of each class condition, for classifier-free guidance.
        condition_shapes: the shape of one sample's condition, by name.

    Raises:
        ValueError: if the numbers of embeddings and blocks do not fit, or those of positions and patches.
    """

    grid: tuple[int, int]

    def __init__(
        self,
        patches: nn.Conv2d,
        positions: Tensor,
        grid: tuple[int, int],
        embeddings: Sequence[ConditionEmbedding],
        blocks: Sequence[ModulatedTransformerBlock],
        head: PatchHead,
        *,
        checkpointing: bool = False,
    ) -> None:
        super().__init__(embeddings[0].condition_names, patches, blocks, grid=grid, checkpointing=checkpointing)
        if len(embeddings) not in (1, len(blocks)):
            raise ValueError(f"embeddings has {len(embeddings)} entries, but must have 1, or {len(blocks)} as blocks")
        if len(positions) != grid[0] * grid[1]:
            raise ValueError(f"positions has {len(positions)} rows, but must have {grid[0] * grid[1]}: one for a patch")
        self.positions = nn.Parameter(positions, requires_grad=False)
        self.embeddings = nn.ModuleList(embeddings)
        self.head = head
        self.null_conditions = embeddings[0].null_conditions
        self.condition_shapes = embeddings[0].condition_shapes

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
        conditions, identities = self.check_inputs(x, timestep, conditional_inputs)

        # Embed
        h, grid = self.tokens(x)
        h = h + self.positions
        embeddings = [embedding(timestep, conditions)[0] for embedding in self.embeddings]

        # Transform
        for i, (block, identity) in enumerate(zip(self.blocks, identities, strict=True)):
            h = self.run(block, h, embeddings[i % len(embeddings)], identity)

        # Project
        return self.head(h, embeddings[0], grid, x.dtype)

"""The diffusion Transformer with cross-attention to text."""

from collections.abc import Sequence

from torch import Tensor, nn

from diffusion_labs.conditioning import ConditionalInputs
from diffusion_labs.keeping import stepped
from diffusion_labs.layers import ConditionEmbedding, ModulatedCrossAttentionBlock, StretchedPositions
from diffusion_labs.models.transformer.heads import PatchHead
from diffusion_labs.models.transformer.network import PatchTransformer
from diffusion_labs.output import DiffusionOutput


class PixArt(PatchTransformer):
    """PixArt-alpha's Transformer (arXiv 2310.00426), built from its parts; ``pixart`` builds it from sizes.

    Patches of x are tokens, which attend to each other and to the text. One modulation, of the time and what is added
    to it, is shared by all blocks, and each adds a table of its own: adaLN-single. The input is cast to the dtype of
    the weights, and the output has the dtype of the input.

    It also takes the conditional input ``identity_attention``, bool ``[b, depth]``: for which samples the
    self-attention of which blocks is the identity; see ``PerturbedAttentionGuidance``.

    Args:
        patches: the convolution from patches to tokens; its stride is the size of a patch.
        positions: the vectors of the positions of any grid.
        embedding: of the time and the conditions, and the context, with at least one token condition.
        modulation: from the embedding to what all blocks share.
        blocks: the Transformer.
        head: from tokens, and the embedding itself, to the output.
        checkpointing: in train mode, recompute each block in the backward pass: less memory, more time.

    Attributes:
        attention_blocks: the names of the self-attentions, from the first to the last.
        null_conditions: the index of the null class of each class condition, for classifier-free guidance.
        condition_shapes: the shape of one sample's condition, by name; ``None`` is any number of tokens.
    """

    def __init__(
        self,
        patches: nn.Conv2d,
        positions: StretchedPositions,
        embedding: ConditionEmbedding,
        modulation: nn.Module,
        blocks: Sequence[ModulatedCrossAttentionBlock],
        head: PatchHead,
        *,
        checkpointing: bool = False,
    ) -> None:
        super().__init__(embedding.condition_names, patches, blocks, checkpointing=checkpointing)
        self.positions = positions
        self.embedding = embedding
        self.modulation = modulation
        self.head = head
        self.null_conditions = embedding.null_conditions
        self.condition_shapes = embedding.condition_shapes

    def forward(
        self, x: Tensor, timestep: Tensor, conditional_inputs: ConditionalInputs | None = None
    ) -> DiffusionOutput:
        """Predict.

        Args:
            x: noisy data ``[b, in_channels, height, width]``, of any size that is made of whole patches.
            timestep: the time of each sample, integer or floating, ``[b]``.
            conditional_inputs: any subset of the conditions that the network was built for.

        Returns:
            The prediction, ``[b, out_channels, height, width]``, and the variance value if it is learned.

        Raises:
            ValueError: for an input of the wrong shape or dtype, or an unknown condition.
        """
        conditions, identities = self.check_inputs(x, timestep, conditional_inputs)

        # Embed
        h, grid = self.tokens(x)
        h = h + self.positions(grid, h)
        embedding, context = self.embedding(timestep, conditions)
        assert context is not None, "the embedding has at least one token condition"
        shared = stepped(self.modulation, embedding)

        # Transform
        for block, identity in zip(self.blocks, identities, strict=True):
            h = self.run(block, h, shared, context.tokens, context.mask, identity)

        # Project
        return self.head(h, embedding, grid, x.dtype)

"""The diffusion Transformer with two streams, of the image and of the text."""

from collections.abc import Sequence

from torch import Tensor, nn

from diffusion_labs.conditioning import ConditionalInputs
from diffusion_labs.layers import ConditionEmbedding, CroppedPositions, JointTransformerBlock
from diffusion_labs.models.transformer.heads import PatchHead
from diffusion_labs.models.transformer.network import PatchTransformer
from diffusion_labs.output import DiffusionOutput


class MMDiT(PatchTransformer):
    """Stable Diffusion 3's Transformer (arXiv 2403.03206, section 4), built from its parts.

    ``mmdit`` builds it from sizes. Patches of x are tokens beside those of the text, and all attend to all. The time
    and the vectors modulate every block. It is a network as any other: with ``RectifiedFlowSchedule`` and
    ``FlowPredictor`` it is the paper's model. The input is cast to the dtype of the weights, and the output has the
    dtype of the input.

    It also takes the conditional input ``identity_attention``, bool ``[b, depth]``: in which samples no patch attends
    to another one in which blocks, but to itself and the text; see ``PerturbedAttentionGuidance``.

    Args:
        patches: the convolution from patches to tokens; its stride is the size of a patch.
        positions: the vectors of the positions of a grid.
        embedding: of the time and the conditions, and the tokens of the text, with at least one token condition.
        blocks: the Transformer.
        head: from tokens to the output.
        checkpointing: in train mode, recompute each block in the backward pass: less memory, more time.

    Attributes:
        attention_blocks: the names of the blocks, from the first to the last.
        null_conditions: the index of the null class of each class condition, for classifier-free guidance.
        condition_shapes: the shape of one sample's condition, by name; ``None`` is any number of tokens.
    """

    def __init__(
        self,
        patches: nn.Conv2d,
        positions: CroppedPositions,
        embedding: ConditionEmbedding,
        blocks: Sequence[JointTransformerBlock],
        head: PatchHead,
        *,
        checkpointing: bool = False,
    ) -> None:
        super().__init__(embedding.condition_names, patches, blocks, checkpointing=checkpointing)
        self.positions = positions
        self.embedding = embedding
        self.head = head
        self.attention_blocks = tuple(f"blocks.{i}" for i in range(len(blocks)))
        self.null_conditions = embedding.null_conditions
        self.condition_shapes = embedding.condition_shapes

    def forward(
        self, x: Tensor, timestep: Tensor, conditional_inputs: ConditionalInputs | None = None
    ) -> DiffusionOutput:
        """Predict.

        Args:
            x: noisy data ``[b, in_channels, height, width]``, of any size that is made of whole patches and has
                positions.
            timestep: the time of each sample, integer or floating, ``[b]``.
            conditional_inputs: any subset of the conditions that the network was built for.

        Returns:
            The prediction, ``[b, out_channels, height, width]``.

        Raises:
            ValueError: for an input of the wrong shape or dtype, or an unknown condition.
        """
        conditions, identities = self.check_inputs(x, timestep, conditional_inputs)

        # Embed
        h, grid = self.tokens(x)
        h = h + self.positions(grid, h)
        embedding, context = self.embedding(timestep, conditions)
        assert context is not None, "the embedding has at least one token condition"
        tokens = context.tokens

        # Transform
        for block, identity in zip(self.blocks, identities, strict=True):
            h, tokens = self.run(block, h, tokens, embedding, context.mask, identity)

        # Project
        return self.head(h, embedding, grid, x.dtype)

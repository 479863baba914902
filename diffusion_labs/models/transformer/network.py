"""What the networks of this folder have in common."""

from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor, nn

from diffusion_labs.checkpointing import Checkpointing, call_block
from diffusion_labs.conditioning import (
    ConditionalInputs,
    ConditionalModule,
    check_floating,
    check_identity,
    check_timestep,
)


class PatchTransformer(ConditionalModule):
    """Base class of networks whose tokens are the patches of x.

    They also take the conditional input ``identity_attention``, bool ``[b, depth]``: for which samples the attention of
    which blocks is the identity; see ``PerturbedAttentionGuidance``.

    Args:
        condition_names: the other conditional inputs.
        patches: the convolution from patches to tokens; its stride is the size of a patch.
        blocks: the Transformer.
        grid: the number of patches in a column and in a row of x, if they are the same for all x.
        checkpointing: in train mode, recompute each block in the backward pass: less memory, more time.

    Attributes:
        attention_blocks: the names of the attentions, from the first to the last.
    """

    grid: tuple[int, int] | None

    def __init__(
        self,
        condition_names: Iterable[str],
        patches: nn.Conv2d,
        blocks: Sequence[nn.Module],
        *,
        grid: tuple[int, int] | None = None,
        checkpointing: bool = False,
    ) -> None:
        super().__init__({*condition_names, "identity_attention"})
        self.grid = grid
        self.checkpointing: Checkpointing = checkpointing
        self.patches = patches
        self.blocks = nn.ModuleList(blocks)
        self.attention_blocks = tuple(f"blocks.{i}.attention" for i in range(len(blocks)))

    def check_inputs(
        self, x: Tensor, timestep: Tensor, conditional_inputs: ConditionalInputs | None
    ) -> tuple[ConditionalInputs, list[Tensor | None]]:
        """The conditional inputs, and for whom the attention is the identity, block by block.

        Raises:
            ValueError: for an input of the wrong shape or dtype, or an unknown condition.
        """
        conditions = self.check_conditions(conditional_inputs, x)
        self.check_shape(x)
        check_floating(x)
        check_timestep(timestep, x)
        identity = conditions.get("identity_attention")
        if identity is None:
            return conditions, [None] * len(self.blocks)
        check_identity(identity, self.attention_blocks)
        return conditions, list(identity.unbind(1))

    def check_shape(self, x: Tensor) -> None:
        """Raise a ``ValueError`` unless x has the network's channels and is made of whole patches."""
        side, channels = self.patches.stride[0], self.patches.in_channels
        if self.grid is not None:
            fits = list(x.shape[1:]) == [channels, *(side * patches for patches in self.grid)]
        else:
            fits = x.dim() == 4 and x.shape[1] == channels and all(size % side == 0 for size in x.shape[2:])
        if fits:
            return
        if self.grid is not None:
            expected = f"{[len(x), channels, *(side * patches for patches in self.grid)]}"
        else:
            expected = f"[{len(x)}, {channels}, height, width] with sides that {side} divides"
        raise ValueError(
            f"x has shape {list(x.shape)}, but must be {expected}; build the network with other "
            "in_channels or size, or check what adapters concatenate to x"
        )

    def tokens(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """The tokens ``[b, n, dim]`` of the patches, in reading order, and how many rows and columns there are."""
        h = self.patches(x.to(self.patches.weight.dtype))
        return h.flatten(2).mT, (h.shape[2], h.shape[3])

    def run(self, block: nn.Module, *arguments: Tensor | None) -> Any:
        """Call a block; with checkpointing, in train mode, such that it is recomputed in the backward pass."""
        return call_block(block, *arguments, recompute=self.training and self.checkpointing)

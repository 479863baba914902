"""The attention block of latent diffusion."""

from jaxtyping import Float
from torch import Tensor, nn

from diffusion_labs.layers import Context, GroupNorm, TransformerBlock, zero_init
from diffusion_labs.models.adm_unet.blocks import NumberedAttention


class SpatialTransformer(NumberedAttention):
    """Transformer blocks over the positions, with attention to the context: ``x + proj_out(blocks(proj_in(norm(x))))``.

    The output projection starts at zero, so the block starts as the identity. Latent diffusion, arXiv 2112.10752,
    section 3.3. The projections act on one position at a time: Stable Diffusion 1 stores them as 1x1 convolutions,
    Stable Diffusion 2 as linear layers, and they are the same.

    Args:
        channels: channels of x.
        num_heads: heads of each attention.
        context_dim: width of the context tokens.
        depth: the number of Transformer blocks, each with one self-attention that the network numbers.
        num_groups: see ``GroupNorm``.
        eps: see ``GroupNorm``; smaller here than in the residual blocks.

    Raises:
        ValueError: if the heads do not divide the channels.
    """

    def __init__(
        self,
        channels: int,
        num_heads: int,
        *,
        context_dim: int,
        depth: int = 1,
        num_groups: int = 32,
        eps: float = 1e-6,
    ) -> None:
        super().__init__()
        self.norm = GroupNorm(channels, num_groups=num_groups, eps=eps)
        self.proj_in = nn.Linear(channels, channels)
        self.blocks = nn.ModuleList(
            TransformerBlock(channels, num_heads, context_dim=context_dim) for _ in range(depth)
        )
        self.proj_out = zero_init(nn.Linear(channels, channels))

    def attention_names(self, name: str) -> list[str]:
        """One for each Transformer block."""
        return [f"{name}.blocks.{i}" for i in range(len(self.blocks))]

    def forward(
        self, x: Float[Tensor, "b c *d"], embedding: Float[Tensor, "b e"], context: Context | None
    ) -> Float[Tensor, "b c *d"]:
        assert context is not None, "the network's embedding gives a context whenever it has token conditions"
        h = self.proj_in(self.norm(x).flatten(2).mT)
        for i, block in enumerate(self.blocks):
            h = block(h, context.tokens, context.mask, self.identity(context, i))
        return x + self.proj_out(h).mT.reshape(x.shape)

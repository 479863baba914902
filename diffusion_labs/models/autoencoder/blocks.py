"""The blocks of the autoencoders, all called as ``block(x)``: they know no time."""

from jaxtyping import Float
from torch import Tensor, nn

from diffusion_labs.layers import GroupNorm, GroupNormSiLU, attention, conv, merge_heads


class ResBlock(nn.Module):
    """Residual block: ``skip(x) + conv_out(norm_out(conv_in(norm_in(x))))``, where both norms end with SiLU.

    As in the encoder and decoder of VQGAN (arXiv 2012.09841), which LDM (arXiv 2112.10752) takes over.

    Args:
        in_channels: channels of x.
        out_channels: channels of the output; a 1x1 convolution on the skip path where they differ.
        dims: number of spatial dimensions.
        dropout: rate of dropout before the last convolution.
        num_groups: see ``GroupNorm``.
        eps: see ``GroupNorm``.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        dims: int = 2,
        dropout: float = 0.0,
        num_groups: int = 32,
        eps: float = 1e-6,
    ) -> None:
        super().__init__()
        self.norm_in = GroupNormSiLU(in_channels, num_groups=num_groups, eps=eps)
        self.conv_in = conv(dims, in_channels, out_channels, 3, padding=1)
        self.norm_out = GroupNormSiLU(out_channels, num_groups=num_groups, eps=eps, dropout=dropout)
        self.conv_out = conv(dims, out_channels, out_channels, 3, padding=1)
        same = in_channels == out_channels
        self.skip = nn.Identity() if same else conv(dims, in_channels, out_channels, 1)

    def forward(self, x: Float[Tensor, "b c *d"]) -> Float[Tensor, "b o *d"]:
        h = self.conv_in(self.norm_in(x))
        h = self.conv_out(self.norm_out(h))
        return self.skip(x) + h


class AttentionBlock(nn.Module):
    """Residual self-attention of the positions, with one head: ``x + proj_out(attention(q, k, v))``.

    ``q, k, v`` are linear in ``norm(x)``, each a 1x1 convolution of its own.

    Args:
        channels: channels of x, and width of the head.
        dims: number of spatial dimensions.
        num_groups: see ``GroupNorm``.
        eps: see ``GroupNorm``.
    """

    def __init__(self, channels: int, *, dims: int = 2, num_groups: int = 32, eps: float = 1e-6) -> None:
        super().__init__()
        self.norm = GroupNorm(channels, num_groups=num_groups, eps=eps)
        self.q = conv(dims, channels, channels, 1)
        self.k = conv(dims, channels, channels, 1)
        self.v = conv(dims, channels, channels, 1)
        self.proj_out = conv(dims, channels, channels, 1)

    def forward(self, x: Float[Tensor, "b c *d"]) -> Float[Tensor, "b c *d"]:
        h = self.norm(x)
        q, k, v = (layer(h, to_tokens=True)[:, None] for layer in (self.q, self.k, self.v))
        return x + self.proj_out(merge_heads(attention(q, k, v)).mT.reshape(x.shape))

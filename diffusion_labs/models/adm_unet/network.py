"""The U-Net of ADM."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from diffusion_labs.conditioning import (
    ConditionalInputs,
    ConditionalModule,
    check_floating,
    check_identity,
    check_timestep,
)
from diffusion_labs.keeping import kept
from diffusion_labs.layers import ConditionEmbedding, Context, Conv, GroupNormSiLU, conv, zero_init
from diffusion_labs.models.adm_unet.blocks import BlockSequence, NumberedAttention
from diffusion_labs.output import DiffusionOutput


class Head(nn.Module):
    """``conv(SiLU(norm(h)))`` from features to the prediction; the convolution starts at zero.

    Runs in the dtype of its own weights, float32 in a network whose blocks run in half precision.

    Args:
        in_channels: channels of the features.
        out_channels: channels of the prediction.
        dims: number of spatial dimensions.
        num_groups: see ``GroupNorm``.
        eps: see ``GroupNorm``.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, dims: int = 2, num_groups: int = 32, eps: float = 1e-5
    ) -> None:
        super().__init__()
        self.norm = GroupNormSiLU(in_channels, num_groups=num_groups, eps=eps)
        self.conv = zero_init(conv(dims, in_channels, out_channels, 3, padding=1))

    def forward(self, h: Tensor, dtype: torch.dtype) -> DiffusionOutput:
        """Project features ``[b, in_channels, ...]`` to an output of the given dtype."""
        return DiffusionOutput(self.project(h).to(dtype))

    def project(self, h: Tensor) -> Tensor:
        return self.conv(self.norm(h.to(self.conv.weight.dtype)))


class LearnedVarianceHead(Head):
    """A head that also predicts the variance: ``variance_value = (v_raw + 1) / 2``.

    ADM trains ``v_raw`` in [-1, 1], the second half of the channels, to interpolate the
    log-variance between its bounds (Improved DDPM, arXiv 2102.09672, Eq. 15).

    Args:
        in_channels: channels of the features.
        out_channels: channels of the prediction; the convolution has twice as many.
        dims: number of spatial dimensions.
        num_groups: see ``GroupNorm``.
        eps: see ``GroupNorm``.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, dims: int = 2, num_groups: int = 32, eps: float = 1e-5
    ) -> None:
        super().__init__(in_channels, 2 * out_channels, dims=dims, num_groups=num_groups, eps=eps)

    def forward(self, h: Tensor, dtype: torch.dtype) -> DiffusionOutput:
        """Project features ``[b, in_channels, ...]`` to an output of the given dtype."""
        prediction, v_raw = self.project(h).chunk(2, dim=1)
        # FSDP2's hooks are lost on outputs that are views and then changed in place: hence the clone
        return DiffusionOutput(prediction.clone().to(dtype), variance_value=((v_raw + 1) / 2).to(dtype))


class ADMUNet(ConditionalModule):
    """The U-Net of ADM (arXiv 2105.05233), built from its parts; ``adm_unet`` builds it from sizes.

    Encoder, middle and decoder are sequences of blocks called as ``block(x, embedding, context)``.
    The outputs of the first convolution and of every encoder stage are the skip connections, which
    the decoder's stages take in the opposite order, concatenated to their input.

    The input is cast to the dtype of ``conv_in``, in which encoder, middle and decoder run; the
    output has the dtype of the input. So a network in half precision takes and gives float32.

    The names of the parameters follow guided-diffusion: ``input_blocks.0.0`` is ``conv_in``,
    ``input_blocks.i.j`` is ``encoder.{i - 1}.j``, ``middle_block.j`` is ``middle.j``,
    ``output_blocks.i.j`` is ``decoder.i.j``, ``out.{0, 2}`` is ``head.{norm, conv}``.

    A network with attention also takes the conditional input ``identity_attention``, bool ``[b, n]``: for which
    samples which of its n attention blocks are the identity; see ``PerturbedAttentionGuidance``.

    Args:
        embedding: embeds the time and the conditions.
        conv_in: the first convolution.
        encoder: stages down to the lowest resolution.
        middle: the stage at the lowest resolution.
        decoder: as many stages as there are skip connections, that is one more than in ``encoder``.
        head: from features to the output.
        size_multiple: the sides of x must be multiples of this: 2 to the number of downsamplings.

    Attributes:
        attention_blocks: the names of the attention blocks, from the first to the last.

    Raises:
        ValueError: if the numbers of stages do not fit.
    """

    def __init__(
        self,
        embedding: ConditionEmbedding,
        conv_in: Conv,
        encoder: Sequence[BlockSequence],
        middle: BlockSequence,
        decoder: Sequence[BlockSequence],
        head: Head,
        *,
        size_multiple: int = 1,
    ) -> None:
        super().__init__(embedding.condition_names)
        if len(decoder) != len(encoder) + 1:
            raise ValueError(
                f"decoder has {len(decoder)} stages, but must have one more than encoder ({len(encoder)}): "
                "one for each skip connection"
            )
        self.dims = conv_in.weight.dim() - 2
        self.size_multiple = size_multiple
        self.embedding = embedding
        self.conv_in = conv_in
        self.encoder = nn.ModuleList(encoder)
        self.middle = middle
        self.decoder = nn.ModuleList(decoder)
        self.head = head

        names: list[str] = []
        for name, block in self.named_modules():
            if isinstance(block, NumberedAttention):
                block.index = len(names)
                names += block.attention_names(name)
        self.attention_blocks = tuple(names)
        if names:
            self.condition_names = embedding.condition_names | {"identity_attention"}

    @property
    def null_conditions(self) -> dict[str, int]:
        """The index of the null class of each class condition, for classifier-free guidance."""
        return dict(self.embedding.null_conditions)

    @property
    def condition_shapes(self) -> dict[str, tuple[int | None, ...]]:
        """The shape of one sample's condition, by name; ``None`` stands for any number of tokens."""
        return dict(self.embedding.condition_shapes)

    def forward(
        self, x: Tensor, timestep: Tensor, conditional_inputs: ConditionalInputs | None = None
    ) -> DiffusionOutput:
        """Predict.

        Args:
            x: noisy data ``[b, in_channels, *size]``.
            timestep: the time of each sample, integer or floating, ``[b]``.
            conditional_inputs: any subset of the conditions that the network was built for.

        Returns:
            The prediction, ``[b, out_channels, *size]``, and the variance value if it is learned.

        Raises:
            ValueError: for an input of the wrong shape or dtype, or an unknown condition.
        """
        output, _ = self.reusing(x, timestep, conditional_inputs, stages=0)
        return output

    def reusing(
        self,
        x: Tensor,
        timestep: Tensor,
        conditional_inputs: ConditionalInputs | None = None,
        *,
        stages: int = 1,
        features: Tensor | None = None,
    ) -> tuple[DiffusionOutput, Tensor]:
        """``forward``, and the features that the last stages of the decoder get from those before them.

        Given such features, of an earlier time, only these stages are called, and those of the encoder that they have
        skip connections from (DeepCache, arXiv 2312.00858, section 3.2).

        Args:
            x: see ``forward``.
            timestep: see ``forward``.
            conditional_inputs: see ``forward``.
            stages: how many of the decoder's stages are called in any case, from 0 to all.
            features: as returned; all stages are called if ``None``.
        """
        conditions = self.check_conditions(conditional_inputs, x)
        self._check(x, timestep)

        # Embed
        h = self.conv_in(x.to(self.conv_in.weight.dtype))
        embedding, context = self.embedding(timestep, conditions)
        embedding = embedding.to(h.dtype)
        if context is not None:
            context = context._replace(tokens=kept(self.cast, context.tokens, h.dtype))
        if "identity_attention" in conditions:
            check_identity(conditions["identity_attention"], self.attention_blocks)
            context = Context(h.new_zeros(len(h), 0, 0), None) if context is None else context
            context = context._replace(identity=conditions["identity_attention"])

        # Descend
        encoder, decoder = list(self.encoder), list(self.decoder)
        skips = [h]
        for stage in encoder if features is None else encoder[: max(stages - 1, 0)]:
            h = stage(h, embedding, context)
            skips.append(h)

        # Middle, and ascend
        if features is None:
            h = self.middle(h, embedding, context)
            for stage in decoder[: len(decoder) - stages]:
                h = stage(torch.cat([h, skips.pop()], dim=1), embedding, context)
            features = h

        # Ascend to the end
        h = features
        for stage in decoder[len(decoder) - stages :]:
            h = stage(torch.cat([h, skips.pop()], dim=1), embedding, context)

        # Project
        return self.head(h, x.dtype), features

    def cast(self, tokens: Tensor, dtype: torch.dtype) -> Tensor:
        """Tokens of the context in the dtype of the blocks."""
        return tokens.to(dtype)

    def _check(self, x: Tensor, timestep: Tensor) -> None:
        channels = self.conv_in.in_channels
        if x.dim() != self.dims + 2:
            raise ValueError(
                f"x has {x.dim()} dimensions (shape {list(x.shape)}), but must have {self.dims + 2}: batch, "
                f"channels and {self.dims} of space; reshape it, or build the network with other dims"
            )
        check_floating(x)
        if x.shape[1] != channels:
            raise ValueError(
                f"x has {x.shape[1]} channels (shape {list(x.shape)}), but must have {channels}; build the "
                "network with other in_channels, or check what adapters concatenate to x"
            )
        if any(side % self.size_multiple != 0 for side in x.shape[2:]):
            raise ValueError(
                f"x has size {list(x.shape[2:])}, but every side must be a multiple of {self.size_multiple}; "
                "pad or resize x, or build the network with fewer num_resamples"
            )
        check_timestep(timestep, x)

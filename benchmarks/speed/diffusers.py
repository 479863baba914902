"""diffusers."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.speed.sizes import Call, Sizes


class Diffusers:
    """Its ``UNet2DModel`` with the blocks of ADM. Training and guidance are written as in its examples."""

    name = "diffusers"
    package = "diffusers"

    def widths(self, width: int) -> Sequence[int]:
        """See ``Library``."""
        return [width]

    def network(self, sizes: Sizes) -> nn.Module:
        """See ``Library``; the class after the last is the null class."""
        from diffusers import UNet2DModel

        below = len(sizes.mults) - 1
        return UNet2DModel(
            sample_size=sizes.size,
            block_out_channels=tuple(sizes.width * mult for mult in sizes.mults),
            layers_per_block=sizes.num_res_blocks,
            down_block_types=("ResnetDownsampleBlock2D", *["AttnDownBlock2D"] * below),
            up_block_types=(*["AttnUpBlock2D"] * below, "ResnetUpsampleBlock2D"),
            downsample_type="resnet",
            upsample_type="resnet",
            resnet_time_scale_shift="scale_shift",
            attention_head_dim=None,
            dropout=sizes.dropout,
            num_class_embeds=sizes.classes + 1,
        )

    def loss(self, network: nn.Module, sizes: Sizes) -> Call:
        """See ``Library``."""
        from diffusers import DDPMScheduler

        scheduler = DDPMScheduler(1000)

        def loss(x: Tensor, label: Tensor) -> Tensor:
            noise, t = torch.randn_like(x), torch.randint(0, 1000, (len(x),))
            dropped = torch.where(torch.rand(len(x)) < 0.1, sizes.classes, label)
            prediction = network(scheduler.add_noise(x, noise, t), t, dropped, return_dict=False)[0]
            return F.mse_loss(prediction, noise)

        return loss

    def sample(self, network: nn.Module, sizes: Sizes, steps: int, guidance_scale: float) -> Call:
        """See ``Library``."""
        from diffusers import DDIMScheduler

        scheduler = DDIMScheduler(1000, clip_sample=False)
        network.eval()

        @torch.no_grad()
        def sample(x: Tensor, label: Tensor) -> Tensor:
            scheduler.set_timesteps(steps)
            both = torch.cat([torch.full_like(label, sizes.classes), label])
            for t in scheduler.timesteps:
                if guidance_scale == 1:
                    prediction = network(x, t, label, return_dict=False)[0]
                else:
                    without, given = network(torch.cat([x, x]), t, both, return_dict=False)[0].chunk(2)
                    prediction = without + guidance_scale * (given - without)
                x = scheduler.step(prediction, t, x, return_dict=False)[0]
            return x

        return sample

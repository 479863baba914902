"""denoising-diffusion-pytorch."""

import contextlib
import io
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from benchmarks.peers import with_stubs
from benchmarks.speed.sizes import Call, Sizes


def classifier_free_guidance() -> ModuleType:
    """The module with classes, for which what only its trainer needs is not installed."""
    stubs = ("torchvision", "accelerate", "ema_pytorch", "pytorch_fid")
    return with_stubs("denoising_diffusion_pytorch.classifier_free_guidance", *stubs)


class DenoisingDiffusion:
    """Its U-Net with classes: two blocks a level on either side, linear attention, no dropout."""

    name = "denoising-diffusion-pytorch"
    package = "denoising_diffusion_pytorch"

    def widths(self, width: int) -> Sequence[int]:
        """See ``Library``: its network is another, so its width is what makes the work equal."""
        return range(width // 2, 2 * width, 2)

    def network(self, sizes: Sizes) -> nn.Module:
        """See ``Library``."""
        network: nn.Module = classifier_free_guidance().Unet(
            dim=sizes.width, num_classes=sizes.classes, cond_drop_prob=0.1, dim_mults=sizes.mults
        )
        return network

    def diffusion(self, network: nn.Module, sizes: Sizes, **options: Any) -> nn.Module:
        """Its process."""
        diffusion: nn.Module = classifier_free_guidance().GaussianDiffusion(
            network, image_size=sizes.size, timesteps=1000, beta_schedule="linear", **options
        )
        return diffusion

    def loss(self, network: nn.Module, sizes: Sizes) -> Call:
        """See ``Library``."""
        diffusion = self.diffusion(network, sizes).train()
        return lambda x, label: diffusion(x, classes=label)

    def sample(self, network: nn.Module, sizes: Sizes, steps: int, guidance_scale: float) -> Call:
        """See ``Library``; it calls the network twice a step, and draws the noise itself."""
        diffusion: Any = self.diffusion(network, sizes, sampling_timesteps=steps, ddim_sampling_eta=0.0).eval()

        def sample(x: Tensor, label: Tensor) -> Tensor:
            with contextlib.redirect_stderr(io.StringIO()):  # its progress bar
                image: Tensor = diffusion.sample(label, cond_scale=guidance_scale, rescaled_phi=0.0)
            return image

        return sample

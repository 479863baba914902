"""torchmultimodal's ``diffusion_labs``."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.peers import with_stubs
from benchmarks.speed.sizes import Call, Sizes

PACKAGE = "torchmultimodal.diffusion_labs"


def part(name: str, attribute: str) -> Any:
    """A part of the package, for which what it reads files with is not installed."""
    return getattr(with_stubs(f"{PACKAGE}.{name}", "iopath", "torchvision"), attribute)


class TorchMultimodal:
    """Its ADM U-Net. It has no class embedding: a class is a vector of zeros and a one, which it projects."""

    name = "torchmultimodal"
    package = "torchmultimodal"

    def widths(self, width: int) -> Sequence[int]:
        """See ``Library``."""
        return [width]

    def network(self, sizes: Sizes) -> nn.Module:
        """See ``Library``."""
        return part("models.adm_unet.adm", "ADMUNet")(
            channels_per_layer=[sizes.width * mult for mult in sizes.mults],
            num_resize=len(sizes.mults) - 1,
            num_res_per_layer=sizes.num_res_blocks,
            use_attention_for_layer=[level > 0 for level in range(len(sizes.mults))],
            dim_res_cond=4 * sizes.width,
            time_embed_dim=sizes.width,
            embed_dim=sizes.classes,
            embed_name="class",
            predict_variance_value=False,
        )

    def process(self) -> tuple[Any, Any]:
        """Its schedule, and its predictor of noise."""
        betas = part("schedules.discrete_gaussian_schedule", "linear_beta_schedule")(1000)
        schedule = part("schedules.discrete_gaussian_schedule", "DiscreteGaussianSchedule")(betas)
        return schedule, part("predictors.noise_predictor", "NoisePredictor")(schedule, None)

    def loss(self, network: nn.Module, sizes: Sizes) -> Call:
        """See ``Library``."""
        transform = part("transforms.diffusion_transform", "RandomDiffusionSteps")(self.process()[0])
        model = part("modules.adapters.cfguidance", "CFGuidance")(network, {"class": sizes.classes}, p=0.1).train()

        def loss(x: Tensor, label: Tensor) -> Tensor:
            batch = transform({"x": x, "class": F.one_hot(label, sizes.classes).float()})
            output = model(batch["xt"], batch["t"], {"class": batch["class"]})
            return F.mse_loss(output.prediction, batch["noise"])

        return loss

    def sample(self, network: nn.Module, sizes: Sizes, steps: int, guidance_scale: float) -> Call:
        """See ``Library``; its scale is 0 for no guidance, and it makes a step less than it is given times."""
        schedule, predictor = self.process()
        guidance = part("modules.adapters.cfguidance", "CFGuidance")
        model = guidance(network, {"class": sizes.classes}, guidance=guidance_scale - 1)
        times = torch.linspace(0, 999, steps + 1).round()
        sampler = part("samplers.ddim", "DDIModule")(model, schedule, predictor, times, progress_bar=False, eta=0.0)
        sampler.eval()

        def sample(x: Tensor, label: Tensor) -> Tensor:
            with torch.no_grad():
                return sampler(x, None, {"class": F.one_hot(label, sizes.classes).float()})

        return sample

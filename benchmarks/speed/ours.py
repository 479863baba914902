"""This library."""

from collections.abc import Sequence

from torch import Tensor, nn

import diffusion_labs as dl
from benchmarks.speed.sizes import Call, Sizes
from diffusion_labs.training import Objective


class Ours:
    """This library's ADM U-Net."""

    name = "diffusion_labs"
    package = "diffusion_labs"

    def widths(self, width: int) -> Sequence[int]:
        """See ``Library``."""
        return [width]

    def network(self, sizes: Sizes) -> nn.Module:
        """See ``Library``."""
        return dl.adm_unet(
            in_channels=3,
            model_channels=sizes.width,
            channel_mult=sizes.mults,
            num_res_blocks=sizes.num_res_blocks,
            attention_levels=range(1, len(sizes.mults)),
            dropout=sizes.dropout,
            classes={"class": sizes.classes},
        )

    def loss(self, network: nn.Module, sizes: Sizes) -> Call:
        """See ``Library``."""
        schedule = dl.DiscreteGaussianSchedule(dl.linear_beta_schedule(1000))
        predictor = dl.NoisePredictor(schedule)
        transform = nn.Sequential(dl.RandomDiffusionSteps(schedule), dl.ComputeTarget(predictor))
        model = dl.CFGuidance(network, {"class": 0.1})
        objective = Objective(transform, model, dl.SimpleLoss(), conditions=["class"]).train()
        return lambda x, label: objective({"x": x, "class": label})

    def sample(
        self, network: nn.Module, sizes: Sizes, steps: int, guidance_scale: float, guided_share: float = 1.0
    ) -> Call:
        """See ``Library``; guidance acts in the last ``guided_share`` of the steps."""
        schedule = dl.DiscreteGaussianSchedule(dl.linear_beta_schedule(1000))
        model = dl.CFGuidance(network, {"class": 0.1}, guidance_scale=guidance_scale)
        sampler = dl.DDIMSampler(model, schedule, dl.NoisePredictor(schedule), eval_steps=steps, progress_bar=False)
        if guided_share < 1:
            first = sampler.times()[round(steps * (1 - guided_share))]
            ratio = float(schedule.sigma(first) / schedule.alpha(first))
            model.interval = dl.GuidanceInterval(schedule, high=1.0001 * ratio)
        sampler.eval()

        def sample(x: Tensor, label: Tensor) -> Tensor:
            return sampler(x, conditional_inputs={"class": label})

        return sample

"""A factory for every public component. The promises in ``contracts/`` are tests over all of them.

A new component is proven by one line here; ``contracts/test_catalogue.py`` fails while it is missing.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

import diffusion_labs as dl

SIZE = (1, 8, 8)  # of a sample of image components
NUM_CLASSES = 3

SCHEDULES: dict[str, Callable[[], dl.Schedule]] = {
    "linear": lambda: dl.DiscreteGaussianSchedule(dl.linear_beta_schedule(1000)),
    "scaled_linear": lambda: dl.DiscreteGaussianSchedule(dl.scaled_linear_beta_schedule(1000)),
    "quadratic": lambda: dl.DiscreteGaussianSchedule(dl.quadratic_beta_schedule(1000)),
    "sigmoid": lambda: dl.DiscreteGaussianSchedule(dl.sigmoid_beta_schedule(1000)),
    "cosine": lambda: dl.DiscreteGaussianSchedule(dl.cosine_beta_schedule(1000)),
    "zero_terminal_snr": lambda: dl.DiscreteGaussianSchedule(
        dl.rescale_zero_terminal_snr(dl.scaled_linear_beta_schedule(1000))
    ),
    "continuous_vp": dl.VariancePreservingSchedule,
    "continuous_cosine": dl.CosineSchedule,
    "shifted_cosine": lambda: dl.CosineSchedule(shift=0.25, log_snr_min=-float("inf")),
    "laplace": dl.LaplaceSchedule,
    "variance_exploding": dl.VarianceExplodingSchedule,
    "edm": dl.EDMSchedule,
    "rectified_flow": dl.RectifiedFlowSchedule,
    "shifted_flow": lambda: dl.RectifiedFlowSchedule(shift=3.0),
    "short": lambda: dl.DiscreteGaussianSchedule(dl.linear_beta_schedule(50)),
}

PREDICTORS: dict[str, Callable[..., dl.Predictor]] = {
    "noise": dl.NoisePredictor,
    "target": dl.TargetPredictor,
    "v": dl.VPredictor,
    "flow": dl.FlowPredictor,
    "score": dl.ScorePredictor,
    "edm": dl.EDMPredictor,
}

CLAMPS = {"static": dl.StaticClamp, "dynamic": lambda: dl.DynamicThreshold(0.9)}

SAMPLERS: dict[str, Callable[..., dl.Sampler]] = {
    "ddpm": dl.DDPMSampler,
    "ddpm_large": lambda *args, **options: dl.DDPMSampler(*args, variance_value=1.0, **options),
    "ddim": dl.DDIMSampler,
    "ddim_stochastic": lambda *args, **options: dl.DDIMSampler(*args, eta=0.7, **options),
    "euler": dl.EulerSampler,
    "heun": dl.HeunSampler,
    "dpmpp_2m": dl.DPMSolverPP2MSampler,
    "dpmpp_2s": dl.DPMSolverPP2SSampler,
    "dpmpp_3m": dl.DPMSolverPP3MSampler,
    "edm_stochastic": dl.EDMStochasticSampler,
    "dpm2_ancestral": dl.DPM2AncestralSampler,
    "lms_2": lambda *args, **options: dl.LMSSampler(*args, order=2, **options),
    "lms_3": lambda *args, **options: dl.LMSSampler(*args, order=3, **options),
    "euler_ancestral": dl.EulerAncestralSampler,
    "dpmpp_sde_2m": dl.DPMSolverPPSDE2MSampler,
    "unipc_1": lambda *args, **options: dl.UniPCSampler(*args, order=1, **options),
    "unipc_2": lambda *args, **options: dl.UniPCSampler(*args, order=2, **options),
    "unipc_3": lambda *args, **options: dl.UniPCSampler(*args, order=3, **options),
    "deis_2": lambda *args, **options: dl.DEISSampler(*args, order=2, **options),
    "deis_3": lambda *args, **options: dl.DEISSampler(*args, order=3, **options),
    "dpm2": dl.DPM2Sampler,
    "repaint": lambda *args, **options: dl.RePaintSampler(*args, resamplings=2, jump_length=2, **options),
}

GRIDS = {
    "trailing": dl.trailing,
    "leading": dl.leading,
    "linspace": dl.linspace,
    "karras": dl.karras,
    "uniform_log_snr": dl.uniform_log_snr,
    "all_steps": dl.all_steps,
}


def network(in_channels: int = 1, **options: object) -> nn.Module:
    """A tiny U-Net with random weights everywhere: zero initialisation hides errors."""
    model = dl.adm_unet(
        **{
            "in_channels": in_channels,
            "out_channels": 1,
            "model_channels": 8,
            "channel_mult": (1, 2),
            "num_res_blocks": 1,
            "attention_levels": (1,),
            "num_groups": 4,
            "classes": {"class": NUM_CLASSES},
            **options,
        }
    )
    return randomise(model)


def randomise(module: nn.Module, seed: int = 0) -> nn.Module:
    """Give every parameter a random value, scaled to its fan-in."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            fan_in = parameter[0].numel() if parameter.dim() > 1 else 4
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / fan_in**0.5)
    return module


class TinyNetwork(dl.ConditionalModule):
    """One convolution, the time and the class: what adapters and samplers wrap in the tests."""

    def __init__(self, in_channels: int = 1, out_channels: int = 1, learned_variance: bool = False) -> None:
        super().__init__(["class"])
        self.null_conditions = {"class": NUM_CLASSES}
        self.learned_variance = learned_variance
        self.conv = nn.Conv2d(in_channels, out_channels * (1 + learned_variance), 3, padding=1)
        self.table = nn.Embedding(NUM_CLASSES + 1, out_channels * (1 + learned_variance))
        randomise(self)

    def forward(
        self, x: Tensor, timestep: Tensor, conditional_inputs: Mapping[str, Tensor] | None = None
    ) -> dl.DiffusionOutput:
        conditions = self.check_conditions(conditional_inputs, x)
        null = torch.full_like(timestep, NUM_CLASSES, dtype=torch.long)
        embedding = self.table(conditions.get("class", null)) + (timestep / 1000).to(x.dtype)[:, None]
        y = self.conv(x) + embedding[:, :, None, None]
        if not self.learned_variance:
            return dl.DiffusionOutput(y)
        prediction, variance = y.chunk(2, dim=1)
        return dl.DiffusionOutput(prediction, variance.sigmoid())


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "adm_unet": network,
    "adm_unet_learned_variance": lambda: network(learned_variance=True),
    "ideal": lambda: dl.IdealDenoiser(
        dl.VPredictor(SCHEDULES["cosine"]()),
        torch.linspace(-1, 1, 192).reshape(3, *SIZE),
        0.1,
        classes=[0, 1, 2],
    ),
}


class TinyClassifier(nn.Module):
    """The logits of noisy data: what ``ClassifierGuidance`` differentiates in the tests."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(SIZE[0] * SIZE[1] * SIZE[2], NUM_CLASSES)
        randomise(self)

    def forward(self, x: Tensor, timestep: Tensor) -> Tensor:
        return self.linear(x.flatten(1)).tanh() * (1 + timestep / 1000).to(x.dtype)[:, None]


def halve(x: Tensor) -> Tensor:
    """A linear operator: images at half the size."""
    return nn.functional.avg_pool2d(x, 2)


def predictor() -> dl.Predictor:
    """A predictor for adapters that have one."""
    return dl.VPredictor(SCHEDULES["cosine"]())


class AdapterCase:
    """An adapter, how it changes the channels that it hands on, and conditional inputs for it.

    Args:
        wrap: makes the adapter around a model.
        grow: from the channels that the adapter gets to those that its model gets, and the channels of
            the model's prediction, if the data has one.
        inputs: conditional inputs that it needs, for a batch of noisy data.
    """

    def __init__(
        self,
        wrap: Callable[[nn.Module], dl.Adapter],
        grow: Callable[[int, int], tuple[int, int]] = lambda c, out: (c, out),
        inputs: Callable[[Tensor], dict[str, Tensor]] = lambda x: {},
    ) -> None:
        self.wrap = wrap
        self.grow = grow
        self.inputs = inputs


ADAPTERS: dict[str, AdapterCase] = {
    "cfguidance": AdapterCase(
        lambda model: dl.CFGuidance(model, {"class": 0.5}, guidance_scale=2.0),
        inputs=lambda x: {"class": torch.arange(len(x)) % NUM_CLASSES},
    ),
    "inpainting": AdapterCase(
        lambda model: dl.InPainting(model, 1),
        grow=lambda c, out: (c + 2, out),
        inputs=lambda x: {"mask": (x[:, :1] > 0).to(x), "masked_image": 0.5 * x[:, :1]},
    ),
    "super_resolution": AdapterCase(
        lambda model: dl.SuperResolution(model),
        grow=lambda c, out: (c + 1, out),
        inputs=lambda x: {"low_resolution": x[:, :1, ::2, ::2]},
    ),
    "classifier_guidance": AdapterCase(
        lambda model: dl.ClassifierGuidance(model, TinyClassifier(), predictor(), guidance_scale=2.0),
        inputs=lambda x: {"class": torch.arange(len(x)) % NUM_CLASSES},
    ),
    "known_region": AdapterCase(
        lambda model: dl.KnownRegion(model, predictor()),
        inputs=lambda x: {"mask": (x[:, :1] > 0).to(x), "masked_image": 0.5 * x[:, :1]},
    ),
    "linear_posterior": AdapterCase(
        lambda model: dl.LinearPosterior(model, predictor(), halve, noise_std=1.0),
        inputs=lambda x: {"measurement": halve(x) + 0.5},
    ),
    "edm_preconditioning": AdapterCase(lambda model: dl.EDMPreconditioning(model, SCHEDULES["cosine"]())),
    "patchify": AdapterCase(lambda model: dl.Patchify(model, 2), grow=lambda c, out: (4 * c, 4 * out)),
}

TRANSFORMS: dict[str, Callable[[], nn.Module]] = {
    "normalize": lambda: dl.NormalizeImages(data_field="pixels"),
    "random_steps": lambda: dl.RandomDiffusionSteps(SCHEDULES["cosine"]()),
    "compute_target": lambda: dl.ComputeTarget(dl.NoisePredictor(SCHEDULES["cosine"]())),
    "compute_v": lambda: dl.ComputeV(SCHEDULES["cosine"]()),
    "inpainting_mask": dl.RandomInpaintingMask,
    "super_resolution": lambda: dl.SuperResolutionTransform(
        4, blur_sigma=(0.4, 0.6), blur_probability=0.5, noise_sigma=(0.0, 0.1)
    ),
}


def batch(size: int = 4) -> dict[str, Tensor]:
    """A batch with every field that a transform or loss reads."""
    schedule = SCHEDULES["cosine"]()
    x, noise = torch.rand(size, *SIZE) * 2 - 1, torch.randn(size, *SIZE)
    t = torch.arange(size) * 300
    return {
        "x": x,
        "pixels": (x * 127.5 + 127.5).to(torch.uint8),
        "class": torch.arange(size) % NUM_CLASSES,
        "noise": noise,
        "t": t,
        "xt": schedule.q_sample(x, noise, t),
        "target": noise,
    }


LOSSES: dict[str, Callable[[], nn.Module]] = {
    "simple": dl.SimpleLoss,
    "min_snr": lambda: dl.SimpleLoss(dl.NoisePredictor(SCHEDULES["cosine"]()), dl.MinSNR()),
    "p2": lambda: dl.SimpleLoss(dl.NoisePredictor(SCHEDULES["cosine"]()), dl.P2()),
    "edm": lambda: dl.SimpleLoss(dl.NoisePredictor(SCHEDULES["cosine"]()), dl.EDM()),
    "snr": lambda: dl.SimpleLoss(dl.NoisePredictor(SCHEDULES["cosine"]()), dl.SNR()),
    "uniform": lambda: dl.SimpleLoss(dl.NoisePredictor(SCHEDULES["cosine"]()), dl.Uniform()),
    "vlb": lambda: dl.VLBLoss(SCHEDULES["cosine"]()),
    "hybrid": lambda: dl.DiffusionHybridLoss(dl.SimpleLoss(), dl.VLBLoss(SCHEDULES["cosine"]())),
}


def output(size: int = 4) -> dl.DiffusionOutput:
    """An output of a network that learns the variance, with the moments that the losses read."""
    values = torch.rand(4, size, *SIZE, generator=torch.Generator().manual_seed(1))
    return dl.DiffusionOutput(values[0], values[1], values[2], values[3] - 3)

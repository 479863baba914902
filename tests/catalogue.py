"""A factory for every public component. The promises in ``contracts/`` are tests over all of them.

A new component is proven by one line here; ``contracts/test_catalogue.py`` fails while it is missing.
"""

import copy
from collections.abc import Callable, Collection, Mapping
from typing import Any

import pytest
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
    "cauchy": lambda: dl.DensitySchedule(dl.CauchyLogSNR(), log_snr_max=8.0),
    "normal": lambda: dl.DensitySchedule(dl.NormalLogSNR(scale=2.4)),
    "variance_exploding": dl.VarianceExplodingSchedule,
    "edm": dl.EDMSchedule,
    "rectified_flow": dl.RectifiedFlowSchedule,
    "shifted_flow": lambda: dl.RectifiedFlowSchedule(shift=3.0),
    "flow_to_1000": lambda: dl.RectifiedFlowSchedule(terminal=1000.0),
    "cosine_flow": lambda: dl.RectifiedFlowSchedule(time_map=dl.CosineTimeMap()),
    "logit_normal_flow": lambda: dl.RectifiedFlowSchedule(time_map=dl.LogitNormalTimeMap(std=1.2)),
    "short": lambda: dl.DiscreteGaussianSchedule(dl.linear_beta_schedule(50)),
}

DENSITIES: dict[str, Callable[[], dl.Density]] = {
    "uniform_time": dl.UniformTime,
    "uniform_log_snr": lambda: dl.UniformLogSNR(-8.0, 9.0),
    "normal": lambda: dl.NormalLogSNR(0.5, 3.0),
    "edm": dl.NormalLogSNR.edm,
    "logit_normal": lambda: dl.NormalLogSNR.logit_normal(-0.3, 1.1),
    "laplace": lambda: dl.LaplaceLogSNR(1.0, 2.0),
    "logistic": lambda: dl.LogisticLogSNR(0.0, 2.0),
    "sech": lambda: dl.SechLogSNR(0.0, 2.0),
    "cauchy": lambda: dl.CauchyLogSNR(-1.0, 2.0),
    "mode": dl.ModeLogSNR,
    "mode_of_the_ends": lambda: dl.ModeLogSNR(-0.6),
    "loss_second_moment": lambda: learned(dl.LossSecondMoment(50)),
    "loss_second_moment_of_normal": lambda: learned(dl.LossSecondMoment(20, dl.NormalLogSNR(0.5, 3.0), history=2)),
    "adaptive_log_snr": lambda: learned(dl.AdaptiveLogSNR(-8.0, 9.0, bins=20)),
}


def learned(density: dl.Density) -> dl.Density:
    """The density after it saw losses that are largest at one end and differ within its bins."""
    schedule = SCHEDULES["continuous_cosine"]()
    for i in range(10):
        t = density.base.times(schedule, (torch.arange(100, dtype=torch.float64) + i / 10) / 100)
        density.observe(schedule, t, 0.2 + t + 0.3 * torch.cos(40 * t))
    return density


PREDICTORS: dict[str, Callable[..., dl.Predictor]] = {
    "noise": dl.NoisePredictor,
    "target": dl.TargetPredictor,
    "v": dl.VPredictor,
    "flow": dl.FlowPredictor,
    "score": dl.ScorePredictor,
    "edm": dl.EDMPredictor,
}

CLAMPS = {
    "static": dl.StaticClamp,
    "dynamic": lambda: dl.DynamicThreshold(0.9),
    "norm": lambda: dl.FixedNorm(1.0),
}


def no_noise(level: dl.NoiseLevel) -> float:
    """tau of an ODE solver: a function that pickles."""
    return 0.0


SAMPLERS: dict[str, Callable[..., dl.Sampler]] = {
    "ddpm": dl.DDPMSampler,
    "ddpm_large": lambda *args, **options: dl.DDPMSampler(*args, variance_value=1.0, **options),
    "ddim": dl.DDIMSampler,
    "ddim_stochastic": lambda *args, **options: dl.DDIMSampler(*args, eta=0.7, **options),
    "euler": dl.EulerSampler,
    "adaptive": dl.AdaptiveSampler,
    "adams_2": lambda *args, **options: dl.AdamsSampler(*args, order=2, **options),
    "adams_3": lambda *args, **options: dl.AdamsSampler(*args, order=3, **options),
    "flow_adams": lambda *args, **options: dl.FlowAdamsSampler(*args, order=3, **options),
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
    "dpm3": dl.DPMSolver3Sampler,
    "dpmpp_3s": dl.DPMSolverPP3SSampler,
    "dpm_2m": dl.DPMSolver2MSampler,
    "dpm_3m": dl.DPMSolver3MSampler,
    "ipndm": dl.IPNDMSampler,
    "plms": dl.PLMSSampler,
    "pndm": dl.PNDMSampler,
    "dpmpp_sde_3m": dl.DPMSolverPPSDE3MSampler,
    "fitted": dl.FittedSampler,  # with the weights of DDIM
    "sa_solver": dl.SASolverSampler,
    "sa_solver_half": lambda *args, **options: dl.SASolverSampler(*args, tau=0.5, corrector_order=1, **options),
    "sa_solver_ode": lambda *args, **options: dl.SASolverSampler(*args, tau=no_noise, **options),
    "restart": dl.RestartSampler,
    "euler_maruyama": dl.EulerMaruyamaSampler,
    "predictor_corrector": dl.PredictorCorrectorSampler,
    "lcm": dl.LCMSampler,
    # A jump of gamma stays long on every grid: with an exact denoiser the spread is right only for small gamma,
    # and with an exact consistency function for 1. The default is compared with diffusers in test_distilled.
    "tcd": lambda *args, **options: dl.TCDSampler(*args, gamma=0.1, **options),
    "tcd_consistency": lambda *args, **options: dl.TCDSampler(*args, gamma=1.0, **options),
}

# Further orders and settings of a solver that is here anyway; `make test-slow` has them too.
MORE_SETTINGS = (
    *("adams_2", "unipc_1", "unipc_2", "deis_2", "lms_2", "sa_solver_half", "ddpm_large"),
    *("euler", "euler_ancestral", "dpm2", "ddim_stochastic"),  # settings of DDIM and DPM2 ancestral
)
SOLVERS = [pytest.param(name, marks=[pytest.mark.slow] if name in MORE_SETTINGS else []) for name in SAMPLERS]


class ConsistencyFunction(dl.IdealDenoiser):
    """The end of the probability flow from x_t, for one Gaussian: ``f = mean + std (x_t - alpha mean) / sqrt(v_t)``."""

    def denoise(self, xt: Tensor, level: dl.NoiseLevel, classes: Tensor | None = None) -> Tensor:
        alpha, sigma = (
            torch.as_tensor(value).reshape(-1, *[1] * (xt.ndim - 1)) for value in (level.alpha, level.sigma)
        )
        mean, std = self.means[0], self.std[0]
        return mean + std * (xt - alpha * mean) / ((alpha * std) ** 2 + sigma**2).sqrt()


class LCMNetwork(ConsistencyFunction):
    """F of ``f = c_skip x_t + c_out F``, the consistency function, with the scalings of the published models."""

    def denoise(self, xt: Tensor, level: dl.NoiseLevel, classes: Tensor | None = None) -> Tensor:
        f, schedule = super().denoise(xt, level, classes), self.predictor.schedule
        thousandths = 1000 * (level.t.double() - schedule.clean) / (schedule.terminal - schedule.clean)
        scaled = 10 * thousandths.reshape(-1, *[1] * (xt.ndim - 1))
        c_skip, c_out = 0.25 / (scaled**2 + 0.25), scaled / (scaled**2 + 0.25).sqrt()
        return (f - c_skip * xt) / c_out


# Samplers that are for other models than a denoiser, and the exact one of that kind, for one Gaussian.
SAMPLER_MODELS: dict[str, type[dl.IdealDenoiser]] = {
    "lcm": LCMNetwork,  # of E[x0 | xt], as of any mean, multistep consistency sampling would draw too little spread
    "tcd_consistency": ConsistencyFunction,  # at gamma = 1 it is that; below, it is near DDIM, for any model
}

GRIDS = {
    "trailing": dl.trailing,
    "leading": dl.leading,
    "linspace": dl.linspace,
    "karras": dl.karras,
    "karras_flow": dl.karras_flow,
    "uniform_log_snr": dl.uniform_log_snr,
    "exponential": dl.exponential,
    "beta": dl.beta,
    "align_your_steps": dl.align_your_steps,
    "all_steps": dl.all_steps,
    "distilled": dl.distilled,
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
    """One convolution, the time and the class: what adapters and samplers wrap in the tests.

    Its "attention" is the convolution, which the identity halves.
    """

    attention_blocks = ("middle",)

    def __init__(self, in_channels: int = 1, out_channels: int = 1, learned_variance: bool = False) -> None:
        super().__init__(["class", "identity_attention"])
        self.null_conditions = {"class": NUM_CLASSES}
        self.in_channels, self.out_channels = in_channels, out_channels
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
        y = self.conv(x)
        if "identity_attention" in conditions:
            y = torch.where(conditions["identity_attention"][:, :, None, None], y / 2, y)
        y = y + embedding[:, :, None, None]
        if not self.learned_variance:
            return dl.DiffusionOutput(y)
        prediction, variance = y.chunk(2, dim=1)
        return dl.DiffusionOutput(prediction, variance.sigmoid())


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "adm_unet": network,
    "adm_unet_learned_variance": lambda: network(learned_variance=True),
    "deep_cache": lambda: dl.DeepCache(network()),
    "ldm_unet": lambda: randomise(
        dl.ldm_unet(
            in_channels=1,
            model_channels=8,
            channel_mult=(1, 2),
            num_res_blocks=1,
            attention_levels=(1,),
            num_heads=2,
            num_groups=4,
            classes={"class": NUM_CLASSES},
            tokens={"text": 6},
        )
    ),
    "dit": lambda: randomise(
        dl.dit(
            in_channels=1,
            size=8,
            dim=8,
            depth=1,
            num_heads=2,
            learned_variance=True,
            classes={"class": NUM_CLASSES},
            qk_norm=True,
            rotary=True,
            swiglu=True,
        )
    ),
    "pixart": lambda: randomise(
        dl.pixart(
            size=8,
            in_channels=1,
            dim=12,
            depth=1,
            num_heads=3,
            tokens={"text": 6},
            classes={"class": NUM_CLASSES},
            numbers={"resolution": 2, "aspect_ratio": 1},
            checkpointing=True,
        )
    ),
    "mmdit": lambda: randomise(
        dl.mmdit(
            in_channels=1,
            max_size=12,
            position_scale=1.5,
            dim=8,
            depth=2,
            num_heads=2,
            qk_norm=True,
            dual_attention=(0,),
            tokens={"text": 6},
            vectors={"pooled_text": 5},
            classes={"class": NUM_CLASSES},
        )
    ),
    "uvit": lambda: randomise(
        dl.uvit(
            in_channels=1,
            size=8,
            patch_size=4,
            dim=8,
            depth=3,
            num_heads=2,
            classes={"class": NUM_CLASSES},
            vectors={"pooled_text": 5},
            tokens={"text": 6},
            num_tokens=4,
        )
    ),
    "ideal": lambda: dl.IdealDenoiser(
        dl.VPredictor(SCHEDULES["cosine"]()),
        torch.linspace(-1, 1, 192).reshape(3, *SIZE),
        0.1,
        classes=[0, 1, 2],
    ),
}


def tiny_kl(**sizes: Any) -> dl.AutoencoderKL:
    """A tiny autoencoder with random weights everywhere."""
    given = {"in_channels": 1, "channels": (8, 12), "latent_channels": 3, "num_res_blocks": 1, "num_groups": 4}
    return randomise(dl.autoencoder_kl(**{**given, **sizes}))


def tiny_vq(**sizes: Any) -> dl.VQModel:
    """The same with eight codes, see ``signs``."""
    given = {"in_channels": 1, "channels": (8, 12), "latent_channels": 3, "num_res_blocks": 1, "num_groups": 4}
    model = randomise(dl.vq_model(num_codes=8, **{**given, **sizes}))
    signs(model.quantizer)
    return model


def signs(quantizer: dl.VectorQuantizer) -> dl.VectorQuantizer:
    """The quantizer with the corners of a cube as codes, so that a code is the signs: rounding does not change it."""
    code_dim = quantizer.codebook.shape[1]
    corners = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * code_dim)
    with torch.no_grad():
        quantizer.codebook.copy_(corners.reshape(-1, code_dim))
    return quantizer


AUTOENCODERS: dict[str, Callable[[], nn.Module]] = {
    "kl": lambda: tiny_kl(attention_levels=(1,)),
    "kl_without_quant_conv": lambda: tiny_kl(quant_conv=False, middle_attention=False),
    "vq": lambda: tiny_vq(attention_levels=(1,)),
    "vector_quantizer": lambda: signs(dl.VectorQuantizer(2, 1)),
}


WORDS = ("a cat", "", "two dögs")


def texts(size: int = 4) -> list[str]:
    """Captions of different lengths, one of them empty."""
    return [WORDS[i % len(WORDS)] for i in range(size)]


def text_encoder(width: int = 8) -> dl.ByteTextEncoder:
    """A tiny encoder with random weights everywhere."""
    return randomise(dl.ByteTextEncoder(width, depth=1, num_heads=2, max_bytes=12, ngrams=(2,), num_hashes=32))


def ldm_text_encoder(seed: int = 0, **sizes: Any) -> dl.LDMTextEncoder:
    """A tiny one with random weights everywhere, whose attention is narrower than its states."""
    given = {"depth": 2, "num_heads": 2, "head_dim": 3, "num_tokens": 9, "max_length": 4}
    return randomise(dl.LDMTextEncoder(8, **{**given, **sizes}), seed)


def pretrained_encoder(name: str, **options: Any) -> dl.PretrainedTextEncoder:
    """A text encoder of transformers with random weights and a vocabulary of a few words."""
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = ["<pad>", "<start>", "<unknown>", "a", "the", "and", "cat", "dog", "<end>"]
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unknown>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [("<start>", 1), ("<end>", 8)]
    words.post_processor = processors.TemplateProcessing(single="<start> $A <end>", special_tokens=ends)
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<end>")

    layers = {"num_hidden_layers": 3, "num_attention_heads": 2, "hidden_size": 16, "intermediate_size": 32}
    ids = {"vocab_size": 9, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 8}
    if name == "clip":
        config = transformers.CLIPTextConfig(**layers, **ids, max_position_embeddings=9)
        return dl.CLIPTextEncoder(randomise(transformers.CLIPTextModel(config)), tokenizer, **options)
    if name == "unclip":
        config = transformers.CLIPTextConfig(**layers, **ids, max_position_embeddings=9, projection_dim=5)
        model = randomise(transformers.CLIPTextModelWithProjection(config))
        return dl.UnCLIPTextEncoder(model, tokenizer, **options)
    if name == "t5":
        config = transformers.T5Config(**ids, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2)
        return dl.T5TextEncoder(randomise(transformers.T5EncoderModel(config)), tokenizer, **options)
    config = transformers.BertConfig(**layers, **ids, max_position_embeddings=16)
    return dl.SentenceEncoder(randomise(transformers.BertModel(config)), tokenizer, **options)


def conditioner() -> dl.Conditioner:
    """Classes and texts as tokens."""
    return dl.Conditioner({"class": randomise(dl.ClassEmbedding(NUM_CLASSES, 8)), "caption": text_encoder()})


def latent_network() -> nn.Module:
    """A U-Net for the latents of ``tiny_kl`` and the tokens of ``conditioner``."""
    return randomise(
        dl.ldm_unet(
            in_channels=3,
            model_channels=8,
            channel_mult=(1,),
            num_res_blocks=1,
            attention_levels=(),
            num_heads=2,
            num_groups=4,
            tokens={"class_token": 8, "text": 8},
        )
    )


def latent_diffusion(network: nn.Module | None = None, **options: Any) -> dl.LatentDiffusion:
    """A tiny system with random weights everywhere."""
    schedule = SCHEDULES["scaled_linear"]()
    model = dl.CFGuidance(
        latent_network() if network is None else network, {"class_token": 0.3, "text": 0.3}, guidance_scale=2.0
    )
    sampler = dl.DDIMSampler(model, schedule, dl.NoisePredictor(schedule), eval_steps=4, progress_bar=False)
    return dl.LatentDiffusion(tiny_kl(), sampler, conditioner(), dl.LatentScale(0.2, 0.5), **options)


def prior_network() -> nn.Module:
    """A Transformer for embeddings of width 6, with random weights everywhere."""
    return randomise(
        dl.prior_transformer(embed_dim=6, text_dim=8, text_embed_dim=5, max_tokens=7, dim=16, depth=2, num_heads=2)
    )


def prompt(size: int = 4) -> dict[str, Tensor]:
    """What ``prior_network`` is told of texts of different lengths."""
    return {
        "text": torch.randn(size, 5, 8),
        "text_mask": torch.arange(5) < torch.arange(size)[:, None] + 1,
        "text_embedding": torch.randn(size, 5),
    }


def tiny_clip(**options: Any) -> dl.TransformersCLIP:
    """CLIP of images of 8 pixels and texts of at most 12 bytes, with random weights everywhere."""
    sizes = {"embed_dim": 5, "image_dim": 8, "image_depth": 1, "text_dim": 8, "text_depth": 1, "num_heads": 2}
    return randomise(dl.small_clip(image_size=8, max_tokens=14, **{**sizes, "frozen": True, **options}))


def diffusion_prior(clip: nn.Module | None = None, **options: Any) -> dl.DiffusionPrior:
    """A tiny system with random weights everywhere, for the embeddings of ``tiny_clip``."""
    network = dl.prior_transformer(embed_dim=5, text_dim=8, max_tokens=14, dim=16, depth=1, num_heads=2)
    given = {"dropout": 0.3, "guidance_scale": 2.0, "eval_steps": 4, "progress_bar": False, **options}
    return dl.dalle2_prior(randomise(network), clip=clip, scale=dl.LatentScale([0.1] * 5, [2.0] * 5), **given)


# With the arguments of a call.
SYSTEMS: dict[str, Callable[[], tuple[nn.Module, tuple[Any, ...]]]] = {
    "class_embedding": lambda: (randomise(dl.ClassEmbedding(NUM_CLASSES, 8)), (torch.tensor([0, 3, 2, 0]),)),
    "byte_text_encoder": lambda: (text_encoder(), (text_encoder().tokenize(texts()),)),
    **{
        f"{name}_encoder": lambda name=name: (pretrained_encoder(name), (torch.tensor([[1, 3, 7, 8], [1, 8, 0, 0]]),))
        for name in ("clip", "t5", "sentence", "unclip")
    },
    "ldm_text_encoder": lambda: (ldm_text_encoder(), (torch.tensor([[1, 3, 7, 8], [1, 8, 0, 0]]),)),
    "concat_text_encoder": lambda: (
        dl.ConcatTextEncoder([pretrained_encoder("clip"), pretrained_encoder("clip", pooled_name="pooled_text")]),
        (torch.tensor([[[1, 3, 7, 8], [1, 6, 7, 8]], [[1, 8, 0, 0], [1, 8, 8, 8]]]),),
    ),
    "spatial_rescaler": lambda: (randomise(dl.SpatialRescaler(1, 3, 2)), (torch.randn(4, 3, 8, 8),)),
    "prior_transformer": lambda: (prior_network(), (torch.randn(4, 6), torch.tensor([0, 10, 500, 999]), prompt())),
    "transformers_clip": lambda: (tiny_clip(), (tiny_clip().tokenize(texts()),)),
    "diffusion_prior": lambda: (
        diffusion_prior(tiny_clip()),
        (torch.randn(4, 5), torch.tensor([0, 10, 500, 999]), {"caption": tiny_clip().tokenize(texts())}),
    ),
    "conditioner": lambda: (
        conditioner(),
        ({"caption": text_encoder().tokenize(texts()), "class": torch.arange(4) % 3}, torch.randn(4, 3, 4, 4)),
    ),
    "latent_diffusion": lambda: (
        latent_diffusion(),
        (
            torch.randn(4, 3, 4, 4),
            torch.tensor([0, 10, 500, 999]),
            {"caption": text_encoder().tokenize(texts()), "class": torch.arange(4) % 3},
        ),
    ),
}

LATENT_SCALES: dict[str, Callable[[], dl.LatentScale]] = {
    "one_number": lambda: dl.LatentScale(scale=0.18215),
    "per_channel": lambda: dl.LatentScale([0.1], [2.0]),
}

DISCRIMINATORS: dict[str, Callable[[], nn.Module]] = {
    "patch": lambda: dl.PatchDiscriminator(1, channels=8, num_layers=1),
    "patch_group_norm": lambda: dl.PatchDiscriminator(1, channels=8, num_layers=1, norm=lambda c: nn.GroupNorm(4, c)),
}

PERCEPTUAL: dict[str, Callable[[], nn.Module]] = {
    "lpips": dl.LPIPS,
    "features": lambda: dl.FeatureLoss(nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3)), [1, 2]),
}

OBJECTIVES: dict[str, Callable[[], nn.Module]] = {
    "kl": lambda: dl.KLObjective(tiny_kl(), perceptual=PERCEPTUAL["features"]()),
    "vq": lambda: dl.VQObjective(tiny_vq(), perceptual=PERCEPTUAL["features"]()),
    "contrastive": lambda: dl.ContrastiveObjective(tiny_clip(frozen=False)),
}


class TinyClassifier(nn.Module):
    """The logits of noisy data: what ``ClassifierGuidance`` differentiates in the tests."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(SIZE[0] * SIZE[1] * SIZE[2], NUM_CLASSES)
        randomise(self)

    def forward(self, x: Tensor, timestep: Tensor) -> Tensor:
        return self.linear(x.flatten(1)).tanh() * (1 + timestep / 1000).to(x.dtype)[:, None]


CLASSIFIERS: dict[str, Callable[[], nn.Module]] = {
    "adm_classifier": lambda: randomise(
        dl.adm_classifier(
            size=8,
            num_classes=NUM_CLASSES,
            in_channels=1,
            model_channels=8,
            channel_mult=(1, 2),
            num_res_blocks=1,
            attention_levels=(1,),
            head_channels=8,
            num_groups=4,
        )
    ),
}


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
        rescales: those that the model gets otherwise than the adapter.
    """

    def __init__(
        self,
        wrap: Callable[[nn.Module], dl.Adapter],
        grow: Callable[[int, int], tuple[int, int]] = lambda c, out: (c, out),
        inputs: Callable[[Tensor], dict[str, Tensor]] = lambda x: {},
        rescales: Collection[str] = (),
    ) -> None:
        self.wrap = wrap
        self.grow = grow
        self.inputs = inputs
        self.rescales = frozenset(rescales)


GUIDANCE: dict[str, Callable[..., nn.Module]] = {
    "rescale": dl.GuidanceRescale,
    "projected": lambda: dl.AdaptiveProjectedGuidance(dl.VPredictor(SCHEDULES["cosine"]()), norm_threshold=5.0),
    "interval": lambda: dl.GuidanceInterval(SCHEDULES["cosine"](), low=0.5, high=5.0),
}

ADAPTERS: dict[str, AdapterCase] = {
    "cfguidance": AdapterCase(
        lambda model: dl.CFGuidance(model, {"class": 0.5}, guidance_scale=2.0),
        inputs=lambda x: {"class": torch.arange(len(x)) % NUM_CLASSES},
    ),
    "cfguidance_projected": AdapterCase(
        lambda model: dl.CFGuidance(
            model,
            {"class": 0.5},
            guidance_scale={"class": 2.0},
            combine=dl.GuidanceRescale(0.7, GUIDANCE["projected"]()),
            interval=GUIDANCE["interval"](),
        ),
        inputs=lambda x: {"negative_class": (torch.arange(len(x)) + 1) % NUM_CLASSES},
    ),
    "cfguidance_plus_plus": AdapterCase(
        lambda model: dl.CFGuidancePlusPlus(model, {"class": 0.5}, guidance_scale=0.6),
    ),
    "autoguidance": AdapterCase(
        lambda model: dl.AutoGuidance(model, randomise(copy.deepcopy(model), seed=1), guidance_scale=2.0),
    ),
    "perturbed_attention": AdapterCase(lambda model: dl.PerturbedAttentionGuidance(model, guidance_scale=2.0)),
    "inpainting": AdapterCase(
        lambda model: dl.InPainting(model, 1),
        grow=lambda c, out: (c + 2, out),
        inputs=lambda x: {"mask": (x[:, :1] > 0).to(x), "masked_image": 0.5 * x[:, :1]},
    ),
    "concatenation": AdapterCase(
        lambda model: dl.Concatenation(model, {"map": 2, "edges": 1}),
        grow=lambda c, out: (c + 3, out),
        inputs=lambda x: {"map": torch.cat([x[:, :1].sin(), x[:, :1].cos()], 1)},
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
    "expert_denoisers": AdapterCase(
        lambda model: dl.ExpertDenoisers(model, {10: randomise(copy.deepcopy(model), seed=1)}),
    ),
    "micro_conditioning": AdapterCase(
        lambda model: dl.MicroConditioning(model, 8),
        inputs=lambda x: {"sizes": torch.arange(6.0).expand(len(x), -1)},
    ),
    "scaled_embedding": AdapterCase(
        lambda model: dl.ScaledEmbedding(model, dl.LatentScale([0.1, -0.2], [3.0, 5.0])),
        inputs=lambda x: {"image_embedding": x.flatten(1)[:, :2] * (torch.arange(len(x)) % 2)[:, None]},
        rescales=["image_embedding"],
    ),
    "patchify": AdapterCase(lambda model: dl.Patchify(model, 2), grow=lambda c, out: (4 * c, 4 * out)),
}

# In eval mode: in train mode each call teaches the density, and the next one gives another mean.
MEANS: dict[str, Callable[[], nn.Module]] = {
    "importance": lambda: dl.ImportanceMean(
        SCHEDULES["cosine"](), DENSITIES["loss_second_moment"](), dl.NormalLogSNR()
    ).eval()
}

TRANSFORMS: dict[str, Callable[[], nn.Module]] = {
    "normalize": lambda: dl.NormalizeImages(data_field="pixels"),
    "random_steps": lambda: dl.RandomDiffusionSteps(SCHEDULES["cosine"]()),
    "random_steps_stratified": lambda: dl.RandomDiffusionSteps(
        SCHEDULES["cosine"](), dl.NormalLogSNR(), uniform=dl.stratified_uniform
    ),
    "compute_target": lambda: dl.ComputeTarget(dl.NoisePredictor(SCHEDULES["cosine"]())),
    "compute_v": lambda: dl.ComputeV(SCHEDULES["cosine"]()),
    "encode_latents": lambda: dl.EncodeLatents(tiny_kl(), dl.LatentScale(0.2, 0.5), data_field="images"),
    "encode_embeddings": lambda: dl.EncodeEmbeddings(tiny_clip(), dl.LatentScale(scale=2.0), data_field="images"),
    "encode_captions": lambda: dl.EncodeCaptions(tiny_clip()),
    "inpainting_mask": dl.RandomInpaintingMask,
    "super_resolution": lambda: dl.SuperResolutionTransform(
        4, blur_sigma=(0.4, 0.6), blur_probability=0.5, noise_sigma=(0.0, 0.1)
    ),
    "random_crop": lambda: dl.RandomCrop(4, multiple=2, data_field="images"),
    "bsr_degradation": lambda: dl.BSRDegradation(image_field="images"),
}


def batch(size: int = 4) -> dict[str, Tensor]:
    """A batch with every field that a transform or loss reads."""
    schedule = SCHEDULES["cosine"]()
    x, noise = torch.rand(size, *SIZE) * 2 - 1, torch.randn(size, *SIZE)
    t = torch.arange(size) * 300
    return {
        "x": x,
        "pixels": (x * 127.5 + 127.5).to(torch.uint8),
        "images": x.clone(),
        "class": torch.arange(size) % NUM_CLASSES,
        "caption": dl.ByteTokenizer()(texts(size), max_length=14)["input_ids"],
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
    "sigmoid": lambda: dl.SimpleLoss(dl.NoisePredictor(SCHEDULES["cosine"]()), dl.Sigmoid()),
    "importance": lambda: dl.SimpleLoss(mean=MEANS["importance"]()),
    "weighted_importance": lambda: dl.SimpleLoss(
        dl.NoisePredictor(SCHEDULES["cosine"]()), dl.MinSNR(), mean=MEANS["importance"]()
    ),
    "vlb_importance": lambda: dl.VLBLoss(SCHEDULES["cosine"](), mean=MEANS["importance"]()),
    "vlb": lambda: dl.VLBLoss(SCHEDULES["cosine"]()),
    "hybrid": lambda: dl.DiffusionHybridLoss(dl.SimpleLoss(), dl.VLBLoss(SCHEDULES["cosine"]())),
}


def output(size: int = 4) -> dl.DiffusionOutput:
    """An output of a network that learns the variance, with the moments that the losses read."""
    values = torch.rand(4, size, *SIZE, generator=torch.Generator().manual_seed(1))
    return dl.DiffusionOutput(values[0], values[1], values[2], values[3] - 3)

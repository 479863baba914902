"""The input side of EDM's preconditioning."""

import torch
from torch import Tensor, nn

from diffusion_labs.adapters.adapter import Adapter
from diffusion_labs.conditioning import ConditionalInputs
from diffusion_labs.output import DiffusionOutput
from diffusion_labs.schedules.schedule import Schedule

LARGEST_LOG_SNR = 20.0  # sigma / alpha from 5e-5 to 2e4


class EDMPreconditioning(Adapter):
    """Gives the model input of unit variance, and the log of the noise as its time (EDM, arXiv 2206.00364, Table 1).

    For EDM's ``x = x_t / alpha`` and noise ``sigma / alpha``, ``c_in x`` is
    ``x_t / sqrt(sigma^2 + alpha^2 sigma_data^2)`` and ``c_noise = log(sigma / alpha) / 4 = -log_snr / 8``. The output
    side, c_skip and c_out, is ``EDMPredictor``: the two are EDM on any schedule. Log-SNR is clamped to [-20, 20], so
    that c_noise lies in [-2.5, 2.5], also for pure noise and clean data.

    Adapters that concatenate to x go inside, so that only x is scaled. EDM's times, about -1.6 to 1.1, are close
    together for sinusoids made for steps 0 .. 999: ``adm_unet(time_scale=1000)`` spreads them.

    Args:
        model: network or adapter.
        schedule: the process.
        sigma_data: standard deviation of the data, as of ``EDMPredictor``.
    """

    changes = frozenset({"scale", "time"})
    needs = frozenset({"number of channels", "scale", "time"})

    def __init__(self, model: nn.Module, schedule: Schedule, *, sigma_data: float = 0.5) -> None:
        if not sigma_data > 0:
            raise ValueError(f"sigma_data ({sigma_data}) must be positive")
        super().__init__(model)
        self.schedule = schedule
        self.sigma_data = sigma_data

    def forward(
        self, x: Tensor, timestep: Tensor, conditional_inputs: ConditionalInputs | None = None
    ) -> DiffusionOutput:
        """See ``ConditionalModule``."""
        conditions = self.check_conditions(conditional_inputs, x)
        level = self.schedule.at(timestep, x)
        c_in = (level.sigma**2 + level.alpha**2 * self.sigma_data**2) ** -0.5
        log_snr = torch.as_tensor(level.log_snr).clamp(-LARGEST_LOG_SNR, LARGEST_LOG_SNR)
        c_noise = (-log_snr / 8).reshape(timestep.shape)
        output: DiffusionOutput = self.model((c_in * x).to(x.dtype), c_noise, conditions)
        return output

"""The likelihood of data under a diffusion model, exactly."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from diffusion_labs.conditioning import ConditionalInputs
from diffusion_labs.randomness import Generators, randn_like
from diffusion_labs.samplers.dormand_prince import integrate
from diffusion_labs.samplers.probability_flow import amplitude, angle, level_at, velocity
from diffusion_labs.samplers.sampler import Sampler, check_eval_mode

Trace = Callable[[Tensor, Tensor], Tensor]


def exact_trace(v: Tensor, z: Tensor) -> Tensor:
    """The divergence of v ``[b, ...]`` with respect to z, ``[b]``: one backward pass for each dimension of a sample."""
    flat = v.flatten(1)
    rows = (
        torch.autograd.grad(flat[:, i].sum(), z, retain_graph=True)[0].flatten(1)[:, i] for i in range(flat.shape[1])
    )
    return torch.stack(list(rows)).sum(0)


class HutchinsonTrace:
    """An unbiased estimate of the divergence, ``probe^T (dv / dz) probe`` (FFJORD, arXiv 1810.01367, Sec. 3.1).

    The probes are random signs. They are drawn once and kept, so that the equation that is solved is smooth.

    Args:
        like: the data, ``[b, ...]``.
        generator: random numbers.
        probes: number of probes, each a backward pass.
    """

    def __init__(self, like: Tensor, generator: Generators = None, *, probes: int = 1) -> None:
        if probes < 1:
            raise ValueError(f"probes ({probes}) must be at least 1")
        draws = (randn_like(like, generator) for _ in range(probes))
        self.probes = [torch.where(draw < 0, -1.0, 1.0).to(like.dtype) for draw in draws]

    def __call__(self, v: Tensor, z: Tensor) -> Tensor:
        """The estimate for each sample, ``[b]``."""
        products = (torch.autograd.grad(v, z, probe, retain_graph=True)[0] * probe for probe in self.probes)
        return torch.stack([product.flatten(1).sum(1) for product in products]).mean(0)


def log_likelihood(
    sampler: Sampler,
    x0: Tensor,
    conditional_inputs: ConditionalInputs | None = None,
    *,
    trace: Trace = exact_trace,
    rtol: float = 1e-5,
    atol: float = 1e-5,
) -> Tensor:
    """``log p(x0)`` of what the probability flow draws, in nats (Score SDE, arXiv 2011.13456, Sec. 4.3).

    In the angle of the noise level, ``z`` and its velocity v (``probability_flow``):
    ``log p(x0) = log N(z_T; 0, sin^2 phi_T) + int_0^phi_T div v dphi``, by the instantaneous change of variables.
    Below the schedule's first time, where the network is not trained, v grows linearly from its exact value at
    clean data, 0.

    Args:
        sampler: holds the model, its predictor and schedule; what kind it is does not matter.
        x0: clean data ``[b, c, ...]``; add uniform noise of the width of a bin to discrete data.
        conditional_inputs: tensors by name, passed to the model.
        trace: the divergence: ``exact_trace``, or ``HutchinsonTrace(x0)`` for data of many dimensions.
        rtol: relative tolerance of a step of the solver.
        atol: absolute tolerance of a step of the solver.

    Returns:
        ``[b]``, in nats; see ``bits_per_dimension``.

    Raises:
        ValueError: in train mode.
    """
    check_eval_mode(sampler)
    schedule = sampler.schedule

    def slope(state: Tensor, phi: Tensor) -> Tensor:
        with torch.enable_grad():
            z = state[:, 1:].reshape(x0.shape).detach().requires_grad_()
            level = level_at(schedule, phi, z)
            x0_hat, eps, _ = sampler.denoise((amplitude(level) * z).to(z.dtype), level, conditional_inputs)
            v = velocity(x0_hat, eps, level).to(z.dtype)
            divergence = trace(v, z)
        return torch.cat([divergence[:, None], v.flatten(1)], dim=1).detach()

    ends = torch.tensor([schedule.first, schedule.terminal], dtype=torch.float64)
    first, last = (schedule.on(x0.device, angle(level)) for level in schedule.levels(schedule.on(x0.device, ends)))
    state = torch.cat([x0.new_zeros(len(x0), 1), x0.flatten(1)], dim=1)
    state = state + first / 2 * slope(state, first.expand(len(x0)))
    state = integrate(slope, state, first, last, rtol=rtol, atol=atol)
    log_ratio, z = state[:, 0], state[:, 1:]
    spread = last.sin()
    return log_ratio - (0.5 * (z / spread) ** 2 + spread.log() + 0.5 * math.log(2 * math.pi)).sum(1).to(x0.dtype)


def bits_per_dimension(log_likelihood: Tensor, x0: Tensor, *, bin_width: float | None = None) -> Tensor:
    """``-log2 p(x0)`` divided by the number of dimensions, ``[b]``.

    Args:
        log_likelihood: in nats, ``[b]``.
        x0: the data, ``[b, c, ...]``.
        bin_width: of discrete data to which uniform noise of that width was added, 2 / 255 for 8-bit images in
            [-1, 1]: the result is then a bound on the bits of the discrete data.
    """
    width = 0.0 if bin_width is None else math.log2(bin_width)
    return -log_likelihood / (math.log(2) * x0[0].numel()) - width

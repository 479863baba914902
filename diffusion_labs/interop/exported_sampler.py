"""Samplers as programs that PyTorch runs without this library.

The solver becomes a table of numbers (``linear_steps``), and its loop one ``while_loop`` with the network in it once:
program, file and compilation do not grow with the number of steps.
"""

import copy
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diffusion_labs.conditioning import ConditionalInputs, check_floating, for_sampling
from diffusion_labs.files import whole_file
from diffusion_labs.layers.condition_embedding import entry_name
from diffusion_labs.randomness import randn_like
from diffusion_labs.samplers.linear_steps import linear_steps
from diffusion_labs.samplers.sampler import Sampler
from diffusion_labs.schedules.noise_level import NoiseLevel

SUFFIX = ".pt2"
ORIGINS = ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn", "from_node")  # in the exporter's code


def export_sampler(
    model: nn.Module, file: str | Path, x: Tensor, conditional_inputs: Mapping[str, Any] | None = None
) -> None:
    """Write a sampler, loop and all, as a program of ``torch.export``: noise and conditions in, samples out.

    ``torch.export.load(file).module()`` runs it in a process with nothing but PyTorch, for any batch size, on the
    device of x. It is called as it was exported: ``program(x)``, or ``program(x, conditional_inputs)`` with the same
    names. The sample is that of the sampler, up to the order of sums. Noise of a stochastic solver is drawn by the
    program, from PyTorch's global generator: for solvers that draw once after each call of the network, as DDPM does,
    a seed gives the sample that it gives the sampler; for others, one of the same distribution.

    Args:
        model: a sampler, or a ``LatentDiffusion`` around one, in eval mode.
        file: ends in ``.pt2``; is written whole or not at all.
        x: an example of the noise, ``[b, c, ...]``. Sizes other than b, type and device are those of the program.
        conditional_inputs: an example of the conditions, by name, each ``[b, ...]``.

    Raises:
        ValueError: in train mode; for a solver that weighs its estimates by what they are (``AdaptiveSampler``,
            ``PredictorCorrectorSampler``, ``DDPMSampler`` with a learned variance); for a model that keeps something
            between calls (``DeepCache``); for one that ``torch.export`` cannot trace, as it differentiates
            (``ClassifierGuidance``, ``LinearPosterior``); for conditions that the model does not take.

    Example:
        >>> export_sampler(sampler, "digits.pt2", noise, {"class": labels})
        >>> images = torch.export.load("digits.pt2").module()(noise, {"class": labels})
    """
    file = _named(file)
    program = sampling_program(model, x, conditional_inputs)
    _write(file, lambda temporary: torch.export.save(program, temporary))


def compile_sampler(
    model: nn.Module, file: str | Path, x: Tensor, conditional_inputs: Mapping[str, Any] | None = None
) -> None:
    """Write a sampler as ``export_sampler`` does, compiled ahead of time by AOTInductor, for machines like this one.

    ``torch._inductor.aoti_load_package(file)`` runs it, from C++ too. It needs a compiler here, and none there.

    Args:
        model: see ``export_sampler``.
        file: likewise.
        x: likewise.
        conditional_inputs: likewise.

    Raises:
        ValueError: likewise; or if the compiler fails, or there is none.
    """
    file = _named(file)
    program = sampling_program(model, x, conditional_inputs)
    options = {"fallback_random": True}  # the numbers of PyTorch's generator, as in eager mode

    def write(temporary: Path) -> None:
        try:
            torch._inductor.aoti_compile_and_package(program, package_path=str(temporary), inductor_configs=options)
        except RuntimeError as error:  # likewise
            raise ValueError(
                f"AOTInductor cannot compile the {type(model).__name__}; export_sampler needs no compiler. "
                f"It says: {str(error).strip().splitlines()[0]}"
            ) from error

    _write(file, write)


@torch.no_grad()
def sampling_program(
    model: nn.Module, x: Tensor, conditional_inputs: Mapping[str, Any] | None = None
) -> "torch.export.ExportedProgram":
    """The program of a sampler; see ``export_sampler``."""
    if model.training:
        raise ValueError(f"the {type(model).__name__} is in train mode, where it takes one step; call .eval() first")
    check_floating(x)
    for name, value in (conditional_inputs or {}).items():
        if not isinstance(value, Tensor):
            raise ValueError(
                f"conditional_inputs['{name}'] is a {type(value).__name__}, but a program takes tensors alone; encode "
                "texts before, as model.conditioner(texts, x) does"
            )
    inputs = (x,) if conditional_inputs is None else (x, dict(conditional_inputs))
    if len(x) == 1:  # what is seen once is taken as constant
        inputs = torch.utils._pytree.tree_map(lambda one: torch.cat([one, one]), inputs)
    program = _Program(_with_loop(model, *inputs))
    sizes = torch.utils._pytree.tree_map(lambda one: {0: torch.export.Dim("batch", min=1)}, inputs)
    try:
        exported = torch.export.export(program, inputs, dynamic_shapes=sizes, strict=True)
    except RuntimeError as error:  # of many kinds
        raise ValueError(
            f"torch.export cannot trace the {type(model).__name__}; it cannot where a model differentiates, as "
            f"ClassifierGuidance and LinearPosterior do. It says: {str(error).strip().splitlines()[0]}"
        ) from error
    _tidy(exported)
    return exported


def _tidy(exported: "torch.export.ExportedProgram") -> None:
    """No place in the exporter's code, no submodule that is named by a keyword, as ``class``, and no gradients."""
    for module in exported.graph_module.modules():
        for node in module.graph.nodes if isinstance(module, torch.fx.GraphModule) else ():
            for key in ORIGINS:
                node.meta.pop(key, None)
    for spec in exported.graph_signature.input_specs:
        spec.target = None if spec.target is None else _without_keywords(spec.target)
    for tensors in (exported.state_dict, exported.constants):
        for name in list(tensors):
            value = tensors.pop(name)
            if isinstance(value, nn.Parameter):
                value = nn.Parameter(value.detach(), requires_grad=False)
            tensors[_without_keywords(name)] = value


def _without_keywords(path: str) -> str:
    """PyTorch writes paths of submodules as Python."""
    return ".".join(entry_name(name) for name in path.split("."))


class _Program(nn.Module):
    """A sampler in eval mode, called with noise and conditions alone."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, conditional_inputs: ConditionalInputs | None = None) -> Tensor:
        sample: Tensor = self.model(x, None, conditional_inputs, generator=None, start=None)
        return sample


def _with_loop(model: Any, x: Tensor, conditional_inputs: ConditionalInputs | None = None) -> nn.Module:
    """The sampler as its loop; a system of the same call signature around it as it is, around the loop."""
    sampler = getattr(model, "sampler", model)
    if sampler is model:
        return SamplingLoop(sampler, x, conditional_inputs)
    system = copy.copy(model)
    loop = SamplingLoop(sampler, x, model.condition(conditional_inputs, x))
    vars(system)["_modules"] = {**model._modules, "sampler": loop}
    return system


class SamplingLoop(nn.Module):
    """A sampler in eval mode, as ``LinearSteps``, in one ``while_loop``.

    Args:
        sampler: of a linear solver.
        x: an example of the noise.
        conditional_inputs: an example of the conditions.

    Raises:
        ValueError: see ``export_sampler``.
    """

    times: Tensor
    levels: Tensor
    first: Tensor
    weights: Tensor

    def __init__(self, sampler: Sampler, x: Tensor, conditional_inputs: ConditionalInputs | None = None) -> None:
        super().__init__()
        if for_sampling(sampler.model) is not sampler.model:
            raise ValueError(
                "the model keeps something from one call to the next, which no program does here; "
                "export it without the adapter that does, such as DeepCache"
            )
        (last,) = sampler.schedule.levels(sampler.times()[:1].to(x.device))
        learned = sampler.denoise(x, last, conditional_inputs).variance_value
        steps = linear_steps(sampler, learns_variance=learned is not None)
        self.model, self.predictor = sampler.model, sampler.predictor
        self.training = False
        for name, table in steps._asdict().items():
            self.register_buffer(name, table.to(x.device))

    def forward(
        self, x: Tensor, timestep: None, conditional_inputs: ConditionalInputs | None, **unused: None
    ) -> Tensor:
        """From noise to data."""
        from torch._higher_order_ops.while_loop import while_loop  # imports the compiler

        calls, window, terms = self.weights.shape
        each = [1] * x.ndim
        apart = {name: value.clone() for name, value in (conditional_inputs or {}).items()}  # while_loop takes no views
        denoise = Sampler.denoiser(self, apart)  # type: ignore[arg-type]

        def step(k: Tensor, xt: Tensor, *past: Tensor) -> tuple[Tensor, ...]:
            t, (alpha, sigma, log_snr) = self.times.index_select(0, k)[0], self.levels.index_select(0, k)[0]
            x0, eps, _ = denoise(xt, NoiseLevel(t, alpha, sigma, log_snr))
            now = torch.stack([xt, x0, eps, *(randn_like(x) for _ in range(terms - 3))])

            weights = self.weights.index_select(0, k).reshape(window, terms, *each)
            known = torch.cat([now[None], *past])
            xs = (weights * known).sum((0, 1)).to(x.dtype)
            return k + 1, xs, *(known[:-1].clone() for _ in past)

        known = torch.stack([x, *(randn_like(x) for _ in self.first[1:])])
        x0 = (self.first.reshape(-1, *each) * known).sum(0).to(x.dtype)
        past = [x.new_zeros(window - 1, terms, *x.shape)] if window > 1 else []
        k = torch.zeros(1, dtype=torch.int64, device=x.device)
        sample: Tensor = while_loop(lambda k, *_: k[0] < calls, step, (k, x0, *past))[1]
        return sample


def _named(file: str | Path) -> Path:
    file = Path(file)
    if file.suffix != SUFFIX:
        raise ValueError(f"file ({file}) must end in {SUFFIX}, by which PyTorch knows it")
    return file


def _write(file: Path, write: Callable[[Path], object]) -> None:
    with tempfile.TemporaryDirectory() as folder, whole_file(file) as temporary:
        written = Path(folder) / f"sampler{SUFFIX}"
        write(written)
        shutil.copyfile(written, temporary)

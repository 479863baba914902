"""A solver that is fitted to a trained model, and kept in its run."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diffusion_labs.conditioning import ConditionalInputs
from diffusion_labs.files import tensors_sha256, write_json
from diffusion_labs.randomness import seeded
from diffusion_labs.recipes.drawing import guided_by, settings
from diffusion_labs.recipes.model_sizes import ModelSizes
from diffusion_labs.recipes.variants import replaced, shared_copy
from diffusion_labs.samplers import DPMSolverPP2MSampler, FittedSampler
from diffusion_labs.samplers.grids import Grid, at_times, linspace

IMAGES = 16  # whose way is fitted
PRECISE_STEPS, MOST_STEPS = 200, 50
FIRST_SEED = 2**40  # of their noise: not that of pictures which are asked for


def with_fitted_sampler(
    model: Any,
    sizes: ModelSizes,
    wanted: Tensor | Sequence[str],
    *,
    steps: int,
    guidance_scale: float,
    grid: Grid | None = None,
    folder: Path | None = None,
) -> Any:
    """A model on the same weights with a ``FittedSampler``, for one number of steps and guidance scale.

    Args:
        model: what ``sizes.build`` returned, trained, in eval mode. It is left as it was.
        sizes: of the model.
        wanted: classes or captions to fit to, 16 of them; see ``draw``.
        steps: calls of the network.
        guidance_scale: see ``CFGuidance``.
        grid: places the calls; ``linspace`` if ``None``.
        folder: keeps the weights of the solver, which are read again for the same weights of the model.

    Raises:
        ValueError: for more than 50 steps; for a model that needs what is known of each image; see
            ``FittedSampler.fit``.
    """
    if sizes.known:
        raise ValueError(f"a model that is given {sorted(sizes.known)} has no fitted sampler; take another")
    if steps > MOST_STEPS:
        raise ValueError(f"a fitted sampler is for few steps, at most {MOST_STEPS}, not {steps}; take another")
    model = shared_copy(model)
    own = sizes.sampler(model)
    grid = linspace if grid is None else grid
    weights = tensors_sha256(own.model.state_dict())[:12]
    name = f"steps-{steps}-{getattr(grid, '__name__', 'grid')}-guidance-{guidance_scale:g}-{weights}.json"
    file = None if folder is None else folder / name
    if file is not None and file.is_file():
        found = json.loads(file.read_text())
    else:
        with guided_by(own, guidance_scale):
            found = _fit(model, sizes, wanted, steps, grid)
        if file is not None:
            write_json(file, found)
    parts = own.model, own.schedule, own.predictor
    solver = FittedSampler(*parts, weights=found["weights"], eval_steps=steps, grid=at_times(found["times"]))
    return replaced(model, own, solver.train(own.training))


def _fit(model: Any, sizes: ModelSizes, wanted: Tensor | Sequence[str], steps: int, grid: Grid) -> dict[str, Any]:
    """The times and weights of a solver for the noise and conditions that the model's own sampler gets."""
    own = sizes.sampler(model)
    precise = DPMSolverPP2MSampler(
        own.model, own.schedule, own.predictor, eval_steps=PRECISE_STEPS, grid=linspace, progress_bar=True
    ).eval()
    x, conditions = _asked(model, sizes, wanted)
    solver = FittedSampler.fit(precise, x, conditions, eval_steps=steps, grid=grid, order=4 if steps < 8 else 6)
    return {"times": solver.times().tolist(), "weights": solver.weights}


def _asked(model: Any, sizes: ModelSizes, wanted: Tensor | Sequence[str]) -> tuple[Tensor, ConditionalInputs | None]:
    """Noise and conditions that a model gives its sampler, which takes one step for that."""
    own, given = sizes.sampler(model), list[tuple[Tensor, ConditionalInputs | None]]()

    def keep(_: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        given.append((arguments[0], named.get("conditional_inputs")))

    hook = own.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        with settings(own, eval_steps=1, progress_bar=False), torch.no_grad():
            generators = seeded(range(FIRST_SEED, FIRST_SEED + len(wanted)))
            wanted = wanted.to(next(model.parameters()).device) if isinstance(wanted, Tensor) else wanted
            sizes.sample(model, len(wanted), dict.fromkeys(sizes.conditions, wanted), generators)
    finally:
        hook.remove()
    return given[0]

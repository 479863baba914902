"""Every public component is in the catalogue."""

import inspect

import torch
from torch import nn

import diffusion_labs as dl
from tests import catalogue

BASES = (
    dl.Adapter,
    dl.BaseObjective,
    dl.AutoencoderObjective,
    dl.ConditionalModule,
    dl.Density,
    dl.LogSNRDensity,
    dl.Predictor,
    dl.Sampler,
    dl.MultistepSampler,
    dl.Schedule,
    dl.ContinuousSchedule,
    dl.TextEncoder,
    dl.PretrainedTextEncoder,
    dl.Transform,
)
# These have no family: they are tested in tests/training and tests/models.
NOT_COMPONENTS = {dl.Objective, dl.CachedTextEncoder, dl.DALLE2}


def public_components() -> set[type]:
    public = [getattr(dl, name) for name in dl.__all__]
    return {
        item
        for item in public
        if inspect.isclass(item) and issubclass(item, nn.Module) and item not in BASES and item not in NOT_COMPONENTS
    }


def catalogued_components() -> set[type]:
    schedule = catalogue.SCHEDULES["cosine"]()
    predictor = catalogue.PREDICTORS["v"](schedule)
    network = catalogue.TinyNetwork()
    parts: list[object] = [factory() for factory in catalogue.SCHEDULES.values()]
    parts += [factory(schedule) for factory in catalogue.PREDICTORS.values()]
    parts += [factory(network, schedule, predictor) for factory in catalogue.SAMPLERS.values()]
    parts += [case.wrap(catalogue.TinyNetwork()) for case in catalogue.ADAPTERS.values()]
    families = (
        catalogue.DENSITIES,
        catalogue.MEANS,
        catalogue.NETWORKS,
        catalogue.AUTOENCODERS,
        catalogue.LATENT_SCALES,
        catalogue.DISCRIMINATORS,
        catalogue.PERCEPTUAL,
        catalogue.OBJECTIVES,
        catalogue.CLASSIFIERS,
        catalogue.GUIDANCE,
        catalogue.TRANSFORMS,
        catalogue.LOSSES,
    )
    for family in families:
        parts += [factory() for factory in family.values()]
    parts += [factory()[0] for factory in catalogue.SYSTEMS.values()]
    return {type(part) for part in parts}


def test_every_public_component_is_in_the_catalogue() -> None:
    assert public_components() <= catalogued_components()


def test_every_public_grid_is_in_the_catalogue() -> None:
    schedule = catalogue.SCHEDULES["short"]()
    functions = {getattr(dl, name) for name in dl.__all__ if inspect.isfunction(getattr(dl, name))}
    grids = {f for f in functions if list(inspect.signature(f).parameters)[:2] == ["schedule", "steps"]}
    assert grids == set(catalogue.GRIDS.values())
    assert all(isinstance(grid(schedule, 50), torch.Tensor) for grid in grids)

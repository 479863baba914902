"""Mistakes in Python are told by the names of what was given."""

from collections.abc import Callable, Iterator

import jaxtyping
import pytest
import torch

import diffusion_labs as dl
from tests.catalogue import NUM_CLASSES, network

SCHEDULE = dl.DiscreteGaussianSchedule(dl.cosine_beta_schedule(1000))
X = torch.randn(2, 1, 8, 8)


@pytest.fixture
def untyped() -> Iterator[None]:
    """Without the checks of types, which only tests have."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


class OwnScale(dl.VPredictor):
    """With an argument in the order that Python code mostly has."""

    def __init__(self, schedule: dl.Schedule, scale: float = 2.0) -> None:
        super().__init__(schedule)
        self.scale = scale

    def coefficients(self, alpha, sigma):
        return -self.scale * sigma, self.scale * alpha


def sampler(**options: object) -> dl.DDIMSampler:
    given = {"eval_steps": 2, "progress_bar": False, **options}
    return dl.DDIMSampler(network(), SCHEDULE, dl.VPredictor(SCHEDULE), **given).eval()


def of_classes(*classes: int) -> object:
    return network()(X, torch.tensor([1, 2]), {"class": torch.tensor(classes)})


def noised_at(*times: float) -> torch.Tensor:
    return SCHEDULE.q_sample(X, X, torch.tensor(times))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: of_classes(NUM_CLASSES + 1, 0), ValueError, f"'class' is .* and {NUM_CLASSES} for none"),
        (lambda: dl.ClassEmbedding(3, 4)(torch.tensor([4])), ValueError, r"'class_token' is \[4\], .* 3 for none"),
        (lambda: of_classes(0, -1), ValueError, r"'class' is \[0, -1\]"),
        (lambda: dl.CFGuidance(network(), dropout=0.1), TypeError, r"dropout \(0.1\) must be probabilities by name"),
        (lambda: dl.adm_unet(classes=10), TypeError, r"classes \(10\) must be sizes by name"),
        (lambda: dl.CFGuidance(network(), {"class": 0.1}, guidance_scale="2"), TypeError, "guidance_scale"),
        (lambda: sampler(grid="karras"), TypeError, "grid is 'karras'; give the function"),
        (lambda: sampler(eval_steps="3"), ValueError, r"eval_steps \('3'\)"),
        (lambda: sampler()(X, generator=dl.seeded(range(3))), ValueError, "got 3 generators for a batch of 2"),
        (lambda: sampler()(X, generator=0), TypeError, "generator must be a torch.Generator"),
        (lambda: dl.RandomDiffusionSteps(SCHEDULE)({"x": X.byte()}), ValueError, "uint8; put NormalizeImages"),
        (lambda: dl.NormalizeImages()(X), TypeError, "not a tensor; give {'x': x}"),
        (lambda: noised_at(-5, 3), ValueError, r"t is \[-5, 3\], but the times of DiscreteGaussianSchedule are in"),
        (lambda: noised_at(5, 1000), ValueError, r"in \[-1, 999\]"),
        (lambda: noised_at(5, float("nan")), ValueError, "nan"),
        (lambda: OwnScale(SCHEDULE), AttributeError, "'scale'; OwnScale must set .* before super"),
        (lambda: dl.DDIMsampler, AttributeError, "did you mean 'DDIMSampler'?"),
    ],
)
@pytest.mark.usefixtures("untyped")
def test_mistakes_are_told_by_name(call: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_what_is_no_log_snr_has_no_time() -> None:
    nan = torch.tensor([float("nan")])
    assert SCHEDULE.time(nan).isnan().all()
    assert SCHEDULE.log_snr(nan).isnan().all()

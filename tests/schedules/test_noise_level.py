"""Linear combinations of tensors, however their weights are given."""

import itertools

import pytest
import torch

from diffusion_labs.schedules.noise_level import weighted_sum

WEIGHTS = (0.0, 1.0, -1.0, 0.3, 40.0)


@pytest.mark.parametrize("kind", [float, lambda w: torch.tensor(w, dtype=torch.float64)])
@pytest.mark.parametrize("pair", list(itertools.product(WEIGHTS, WEIGHTS)))
def test_a_weighted_sum_is_the_formula_in_float64(pair: tuple[float, float], kind) -> None:
    (a, b), (x, y) = pair, torch.randn(2, 3, 4)
    expected = a * x.double() + b * y.double()
    torch.testing.assert_close(weighted_sum(kind(a), x, b, y).double(), expected, rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(weighted_sum(a, x, kind(b), y).double(), expected, rtol=1e-6, atol=1e-5)


def test_weights_of_nothing_and_of_one_compute_nothing() -> None:
    x, y = torch.randn(2, 3, 4)
    assert weighted_sum(0.0, x, 1.0, y) is y
    assert weighted_sum(1.0, x, 0.0, y) is x

"""When an operator goes through PyTorch's dispatcher."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from diffusion_labs.kernels.operator import Operator


class Counted:
    """An operator, and how often the dispatcher was asked for it."""

    def __init__(self) -> None:
        def thrice(x: Tensor) -> Tensor:
            return 3 * x

        self.operator = Operator(thrice)
        self.operator.register_fake(torch.empty_like)
        self.operator.register_autograd(lambda ctx, dy: 3 * dy)
        self.asked = 0
        registered = self.operator.registered

        def ask(x: Tensor) -> Tensor:
            self.asked += 1
            return registered(x)

        self.operator.registered = ask


@pytest.fixture(scope="module")
def counted() -> Counted:
    return Counted()


def with_gradients(operator: Operator, x: Tensor) -> None:
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(operator(x).sum(), x)
    assert torch.equal(gradient, torch.full_like(x, 3))


def counting_flops(operator: Operator, x: Tensor) -> None:
    with torch.no_grad(), FlopCounterMode(display=False):
        operator(x)


def profiled(operator: Operator, x: Tensor) -> None:
    with torch.no_grad(), profile(activities=[ProfilerActivity.CPU]) as profiler:
        operator(x)
    assert "diffusion_labs::thrice" in {event.key for event in profiler.key_averages()}


def traced(operator: Operator, x: Tensor) -> None:
    with torch.no_grad():
        trace = torch.jit.trace(lambda value: operator(value), x)
    assert torch.equal(trace(2 * x), 6 * x)


@pytest.mark.filterwarnings("ignore:.torch.jit.trace. is deprecated")
@pytest.mark.parametrize("use", [with_gradients, counting_flops, profiled, traced])
def test_what_listens_is_told(use: Callable[[Operator, Tensor], None], counted: Counted) -> None:
    before = counted.asked
    use(counted.operator, torch.randn(3))
    assert counted.asked > before


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_nobody_is_told_where_nothing_listens(mode: Callable[[], torch.no_grad], counted: Counted) -> None:
    before, x = counted.asked, torch.randn(3)
    with mode():
        assert torch.equal(counted.operator(x), 3 * x)
    assert counted.asked == before

"""Every network with recomputed blocks: the same gradients, and only as much computed again as was asked for."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from diffusion_labs.checkpointing import Checkpointing, keep_products, set_checkpointing
from tests.catalogue import NETWORKS, NUM_CLASSES, SIZE

RECOMPUTING = sorted(NETWORKS.keys() - {"ideal"})
GIVEN = {
    "class": torch.arange(2) % NUM_CLASSES,
    "text": torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(0)),
}


class Calls(TorchDispatchMode):
    """How many operations are called."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        return func(*args, **(kwargs or {}))


def trained(name: str, checkpointing: Checkpointing) -> tuple[list[torch.Tensor | None], int, int]:
    """The gradients of a network, the operations in products of matrices that they took, and all calls."""
    network = NETWORKS[name]().train()
    set_checkpointing(network, checkpointing)
    x = torch.randn(2, *SIZE, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(2)  # of dropout
    given = {key: GIVEN[key] for key in GIVEN.keys() & network.condition_names}
    with FlopCounterMode(display=False) as flops, Calls() as calls:
        network(x, torch.tensor([3, 900]), given).prediction.square().sum().backward()
    return [parameter.grad for parameter in network.parameters()], flops.get_total_flops(), calls.count


@pytest.mark.parametrize("name", RECOMPUTING)
def test_recomputed_blocks_have_the_same_gradients(name: str) -> None:
    plain, flops, calls = trained(name, False)
    full, more_flops, _ = trained(name, True)
    selective, same_flops, more_calls = trained(name, keep_products)
    torch.testing.assert_close(full, plain, rtol=0, atol=0)
    torch.testing.assert_close(selective, plain, rtol=0, atol=0)
    assert more_flops > 1.1 * flops
    assert same_flops == flops
    assert more_calls > 1.1 * calls


@pytest.mark.parametrize("checkpointing", [True, pytest.param(keep_products, marks=pytest.mark.slow)])
def test_recomputed_blocks_compile_as_one_graph(checkpointing: Checkpointing) -> None:
    network = NETWORKS["dit"]().train()
    set_checkpointing(network, checkpointing)
    x, t = torch.randn(2, *SIZE), torch.tensor([3, 900])
    gradients = []
    for called in (network, torch.compile(network, fullgraph=True, backend="aot_eager")):
        network.zero_grad()
        called(x, t).prediction.square().sum().backward()
        gradients.append([parameter.grad for parameter in network.parameters()])
    torch.testing.assert_close(*gradients)


def test_a_model_without_blocks_is_refused() -> None:
    with pytest.raises(ValueError, match="no module of this Linear can recompute its blocks"):
        set_checkpointing(torch.nn.Linear(1, 1), True)

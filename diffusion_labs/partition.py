"""How a layer is divided among processes that compute it together."""

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor


class Partition(NamedTuple):
    """Units of a layer, such as its heads, that know nothing of each other: ``output = sum_u output_u + bias``.

    So each of several processes can have some of the units, with the weights of these alone (tensor parallelism,
    Megatron-LM, arXiv 1909.08053, section 3). A layer that can be divided says how by its method ``partition()``.

    Attributes:
        units: how many there are.
        enter: the modules, by name, that give each unit its channels: the unit of each of their output channels,
            int ``[channels]``. Those of some units, in their order, are what the layer reads if it has these units.
        leave: those that take the channels of each unit to what is summed: the unit of each of their input channels.
            Their bias is that of the sum.
        within: modules that are called for each unit with the same weights.
        counts: attributes of the layer that are the number of its units.
    """

    units: int
    enter: Mapping[str, Tensor]
    leave: Mapping[str, Tensor]
    within: tuple[str, ...] = ()
    counts: tuple[str, ...] = ()

"""What an update needs on each of several devices."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from torch import Tensor


@dataclass(frozen=True)
class Plan:
    """What each device needs for an update: bytes at the moment when most are in use, and work.

    Attributes:
        samples: of an update on this device.
        world_size: number of devices.
        parallelism: how they share the model.
        parameters: weights.
        optimizer: what the optimizer remembers.
        average: the averaged weights, where they are not the weights themselves.
        buffers: of the objective and of the averaged model.
        gradients: as many as there are at that moment.
        exchange: what sharing takes at the most: for FSDP2 the gathered weights of a block and of the next, the
            gradients of the block, and those of the one before, which are sent; for DDP a copy of all gradients.
        activations: all else, that is what the backward pass needs and temporary results.
        flops: of forward and backward passes: those of matrix products, convolutions and attention, where a
            multiplication and an addition are two.
        sent: bytes to other devices; as many come from them.
    """

    samples: int
    world_size: int
    parallelism: str
    parameters: int
    optimizer: int
    average: int
    buffers: int
    gradients: int
    exchange: int
    activations: int
    flops: int
    sent: int

    @property
    def memory(self) -> int:
        """Bytes in use at the fullest moment of an update."""
        kept = self.parameters + self.optimizer + self.average + self.buffers
        return kept + self.gradients + self.exchange + self.activations

    def seconds(self, peak_flops: float, bandwidth: float, efficiency: float) -> tuple[float, float]:
        """Bounds of the time of an update: if all exchange is hidden behind computation, and if none is.

        ``max(c, e)`` and ``c + e``, with ``c = flops / (efficiency * peak_flops)`` and ``e = sent / bandwidth``.

        Args:
            peak_flops: of a device, in a second, by its data sheet.
            bandwidth: bytes that a device can send in a second, while it receives as many.
            efficiency: the share of ``peak_flops`` that is reached; it stands for memory traffic, small operations and
                waiting, which are not counted.
        """
        compute, exchange = self.flops / (efficiency * peak_flops), self.sent / bandwidth
        return max(compute, exchange), compute + exchange


@dataclass(frozen=True)
class Part:
    """A tensor that may be in parts.

    Attributes:
        rows: length of its first dimension, in which FSDP2 parts it.
        bytes: of all of it.
    """

    rows: int
    bytes: int

    @classmethod
    def of(cls, value: Tensor) -> "Part":
        """That of a tensor."""
        return cls(len(value) if value.dim() else 1, value.nbytes)

    def share(self, count: int) -> int:
        """The bytes of one of ``count`` parts, of which all are as large as the largest."""
        return -(-self.rows // count) * (self.bytes // max(1, self.rows))


@dataclass(frozen=True)
class Block:
    """Parameters that FSDP2 gathers together.

    Attributes:
        parameters: of the block.
        trained: those that have gradients.
        gathers: how often, in one forward and backward pass.
    """

    parameters: Sequence[Part]
    trained: Sequence[Part]
    gathers: int

    def gathered(self, count: int) -> int:
        """The bytes of all parts of the parameters."""
        return count * _shares(self.parameters, count)

    def reduced(self, count: int) -> int:
        """The bytes of all parts of the gradients."""
        return count * _shares(self.trained, count)


@dataclass(frozen=True)
class TracedUpdate:
    """An update as one device makes it alone, from which follows what it needs as one of many: ``on``.

    Attributes:
        samples: of an update.
        accumulate: passes in an update.
        parameters: all.
        own_average: averaged parameters.
        frozen: parameters of the averaged model that are the model's own, unless they are in parts.
        optimizer: what the optimizer remembers.
        buffers: bytes.
        highest: the most bytes of activations, by the bytes of gradients that were there.
        blocks: those that were called, in their order.
        root: the parameters of no block.
        flops: see ``Plan``.
    """

    samples: int
    accumulate: int
    parameters: Sequence[Part]
    own_average: Sequence[Part]
    frozen: Sequence[Part]
    optimizer: Sequence[Part]
    buffers: int
    highest: Mapping[int, int]
    blocks: Sequence[Block]
    root: Block
    flops: int

    def on(self, world_size: int, parallelism: Literal["ddp", "fsdp"]) -> Plan:
        """The plan of one of several devices that make the update together, each of as many samples as this one."""
        n = world_size
        sharded = parallelism == "fsdp" and n > 1
        parts = n if sharded else 1
        gradients = sum(part.bytes for block in (*self.blocks, self.root) for part in block.trained)
        reduced = sum(block.reduced(n) for block in (*self.blocks, self.root))
        if sharded:
            gathered = sum(block.gathers * block.gathered(n) for block in (*self.blocks, self.root))
            exchange = self._fullest_exchange(n)
            sent = (self.accumulate * gathered + reduced) * (n - 1) // n
        else:
            exchange = gradients if n > 1 else 0
            sent = 2 * gradients * (n - 1) // n
        kept_whole = not sharded or self.accumulate > 1  # gradients are reduced after the last pass
        share = 1.0 if kept_whole else reduced / n / max(1, gradients)
        _, held, activations = max((live + share * size, size, live) for size, live in self.highest.items())
        return Plan(
            samples=self.samples,
            world_size=n,
            parallelism=parallelism,
            parameters=_shares(self.parameters, parts),
            optimizer=_shares(self.optimizer, parts),
            average=_shares([*self.own_average, *(self.frozen if sharded else ())], parts),
            buffers=self.buffers,
            gradients=round(share * held),
            exchange=exchange,
            activations=activations,
            flops=self.flops,
            sent=sent,
        )

    def _fullest_exchange(self, n: int) -> int:
        """FSDP2 in the backward pass: a block and the next gathered, its gradients, and those before, which are sent.

        What is in no block stays gathered, and so do its gradients.
        """
        nothing = Block([], [], 0)
        backwards = [nothing, *reversed(self.blocks), nothing]
        moments = (
            this.gathered(n) + following.gathered(n) + this.reduced(n) + before.reduced(n)
            for (before, this), (_, following) in pairwise(pairwise(backwards))
        )
        return self.root.gathered(n) + self.root.reduced(n) + max(moments, default=0)


def _shares(parts: Iterable[Part], count: int) -> int:
    return sum(part.share(count) for part in parts)

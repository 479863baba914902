"""What an update needs on each of several devices."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import Literal

from torch import Tensor


@dataclass(frozen=True)
class Plan:
    """What each device needs for an update: bytes at the moment when most are in use, and work.

    Attributes:
        samples: of an update on this device.
        world_size: number of devices.
        parallelism: how they share the model.
        shards: into how many parts it is cut; each of so many devices has one.
        tensor: how many devices divide layers, and make each pass together.
        parameters: weights.
        optimizer: what the optimizer remembers.
        average: all averaged weights, where they are not the weights themselves.
        buffers: of the objective and of the averaged model.
        gradients: as many as there are at that moment.
        exchange: what sharing takes at the most: for FSDP2 the gathered weights of a block and of the next, or of all
            if they are kept, the gradients of the block, and those of the one before, which are sent; for DDP a copy of
            all gradients.
        activations: all else, that is what the backward pass needs and temporary results.
        flops: of forward and backward passes: those of matrix products, convolutions and attention, where a
            multiplication and an addition are two.
        sent: bytes to other devices; as many come from them.
    """

    samples: int
    world_size: int
    parallelism: str
    shards: int
    tensor: int
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

    def in_bfloat16(self) -> "Block":
        """The block with weights that travel as half of their bytes, and gradients that do not."""
        return replace(self, parameters=[replace(part, bytes=part.bytes // 2) for part in self.parameters])

    def once(self) -> "Block":
        """The block, not gathered again for its backward pass."""
        return replace(self, gathers=min(self.gathers, 1))

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
        highest_uncast: as ``highest``, without casts of the parameters of blocks.
        blocks: those that were called, in their order.
        root: the parameters of no block.
        flops: see ``Plan``.
        tensor: see ``Plan``. All sizes here are those of one of these devices.
        summed: bytes that these devices add up among them, in an update.
    """

    samples: int
    accumulate: int
    parameters: Sequence[Part]
    own_average: Sequence[Part]
    frozen: Sequence[Part]
    optimizer: Sequence[Part]
    buffers: int
    highest: Mapping[int, int]
    highest_uncast: Mapping[int, int]
    blocks: Sequence[Block]
    root: Block
    flops: int
    tensor: int = 1
    summed: int = 0

    def on(
        self,
        world_size: int,
        parallelism: Literal["ddp", "fsdp"],
        *,
        shards: int | None = None,
        reshard: bool = True,
        bfloat16: bool = False,
        averages: int = 1,
    ) -> Plan:
        """The plan of one of several devices that make the update together, each of as many samples as this one.

        Args:
            world_size: number of devices.
            parallelism: see ``TrainOptions``.
            shards: see ``TrainOptions``.
            reshard: see ``TrainOptions``.
            bfloat16: whether blocks gather their weights in bfloat16.
            averages: of the weights, each a copy.

        Raises:
            ValueError: if the devices cannot be divided into groups that divide layers, or these by ``shards``.
        """
        data_size = world_size // self.tensor
        if world_size % self.tensor:
            raise ValueError(f"tensor_parallel ({self.tensor}) must divide world_size ({world_size})")
        sharded = parallelism == "fsdp" and data_size > 1
        parts = (shards or data_size) if sharded else 1
        if data_size % parts:
            each = f" x tensor_parallel ({self.tensor})" if self.tensor > 1 else ""
            raise ValueError(f"shards ({parts}){each} must divide world_size ({world_size})")
        copies = data_size // parts
        blocks = [block.in_bfloat16() for block in self.blocks] if bfloat16 else list(self.blocks)
        blocks = blocks if reshard else [block.once() for block in blocks]

        gradients = sum(part.bytes for block in (*blocks, self.root) for part in block.trained)
        reduced = sum(block.reduced(parts) for block in (*blocks, self.root))
        sent = 2 * (reduced // parts) * (copies - 1) // copies + 2 * self.summed * (self.tensor - 1) // self.tensor
        if sharded:
            gathered = sum(block.gathers * block.gathered(parts) for block in (*blocks, self.root))
            exchange = self._fullest_exchange(blocks, parts, reshard)
            sent += (self.accumulate * gathered + reduced) * (parts - 1) // parts
        else:
            exchange = gradients if copies > 1 else 0
        kept_whole = not sharded or self.accumulate > 1  # gradients are reduced after the last pass
        share = 1.0 if kept_whole else reduced / parts / max(1, gradients)
        highest = self.highest_uncast if sharded and bfloat16 else self.highest  # gathered as they are used
        _, held, activations = max((live + share * size, size, live) for size, live in highest.items())
        return Plan(
            samples=self.samples,
            world_size=world_size,
            parallelism=parallelism,
            shards=parts,
            tensor=self.tensor,
            parameters=_shares(self.parameters, parts),
            optimizer=_shares(self.optimizer, parts),
            average=averages * _shares(self.own_average, parts) + (_shares(self.frozen, parts) if sharded else 0),
            buffers=self.buffers,
            gradients=round(share * held),
            exchange=exchange,
            activations=activations,
            flops=self.flops,
            sent=sent,
        )

    def _fullest_exchange(self, blocks: Sequence[Block], parts: int, reshard: bool) -> int:
        """FSDP2 in the backward pass: a block and the next gathered, its gradients, and those before, which are sent.

        Without ``reshard`` all blocks are still gathered before the one whose gradients are made. What is in no block
        stays gathered, and so do its gradients.
        """
        nothing = Block([], [], 0)
        backwards = [nothing, *reversed(blocks), nothing]
        kept = [*accumulate(block.gathered(parts) for block in blocks)][::-1]  # of all, of all but the last, ...
        moments = []
        for i, ((before, this), (_, following)) in enumerate(pairwise(pairwise(backwards))):
            held = this.gathered(parts) + following.gathered(parts) if reshard else kept[i]
            moments.append(held + this.reduced(parts) + before.reduced(parts))
        return self.root.gathered(parts) + self.root.reduced(parts) + max(moments, default=0)


def _shares(parts: Iterable[Part], count: int) -> int:
    return sum(part.share(count) for part in parts)

"""What the training loop asks of an objective."""

from typing import Any

from torch import Tensor, nn


class BaseObjective(nn.Module):
    """From a dict batch to the scalar that training minimises; one writes ``forward``.

    It is one module, so that DDP, FSDP2 and ``torch.compile`` wrap all of it. What it has to remember between updates
    is in its buffers, so that a run resumes exactly. Each of several processes has buffers of its own, of which those
    of the first are saved: what it counts of its batches is summed over all in ``after_update`` or ``metrics``. Running
    statistics of batch normalisation stay those of the first process's batches, unless it is ``SyncBatchNorm``.

    Attributes:
        peers: the group of processes of ``torch.distributed`` that have other samples than this one; all if ``None``.
    """

    peers: Any = None

    def forward(self, batch: dict[str, Any]) -> Tensor:
        """The loss of a batch, a scalar."""
        raise NotImplementedError

    def after_update(self, step: int) -> None:
        """Called after every update of the parameters, outside of the compiled graph.

        It may change buffers, which go back if the update turns out to be skipped. Parameters it may change where
        ``awaits`` says so, or if it leaves those alone that it has been called for.

        Args:
            step: the updates that are done.
        """

    def awaits(self, step: int) -> bool:
        """Whether ``after_update`` is called when the host knows that the update was made, for which it waits."""
        return False

    def metrics(self) -> dict[str, Tensor]:
        """Scalars for the log, since they were last asked for, which all processes do; the log has their means."""
        return {}

"""The game between an autoencoder and its discriminator, as one scalar."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call


class Adversarial(NamedTuple):
    """The terms of the game, scalars.

    Attributes:
        loss: what is added to the loss.
        metrics: detached values for the log.
    """

    loss: Tensor
    metrics: dict[str, Tensor]


class AdversarialLoss(nn.Module):
    """``factor * (weight * lambda * generator + hinge)``, whose one backward pass serves both networks.

    ``generator = -mean(D(y))`` moves the reconstructions y alone, as D takes part with detached parameters, and
    ``hinge = 1/2 (mean(relu(1 - D(x))) + mean(relu(1 + D(y))))`` moves D alone, as y is detached. The adaptive weight
    ``lambda = clamp(|grad nll| / (|grad generator| + 1e-4), 0, 10^4)``, with gradients by the weight of the decoder's
    last layer, makes both parts of the decoder's gradient equally large (VQGAN, arXiv 2012.09841, Eq. 7; Latent
    Diffusion, arXiv 2112.10752, appendix G). ``factor`` is 0 before update ``start`` and 1 from then on; until then
    all gradients of the game are zeros, so every parameter takes part at all times, as DDP needs.

    Args:
        discriminator: from images to logits of any shape, high for real ones.
        weight: of the generator's term.
        start: updates before the game begins.

    Raises:
        ValueError: for a start below 0.

    With FSDP2, ``fully_shard`` blocks of the autoencoder and then the objective: the last layer and the discriminator
    are then whole while the loss is computed. Each process has an adaptive weight of its own, as with DDP.
    """

    names = ("d_weight", "generator", "discriminator", "logits_real", "logits_fake")

    def __init__(self, discriminator: nn.Module, *, weight: float, start: int) -> None:
        super().__init__()
        if start < 0:
            raise ValueError(f"disc_start ({start}) must be at least 0: the updates before the discriminator begins")
        self.discriminator = discriminator
        self.weight = weight
        self.start = start

    def forward(self, x: Tensor, y: Tensor, nll: Tensor, last_weight: Tensor, updates: Tensor) -> Adversarial:
        """The game on a batch.

        Args:
            x: real images.
            y: their reconstructions, with their graph.
            nll: the loss of reconstruction, a scalar.
            last_weight: weight of the decoder's last layer.
            updates: the updates that are done, a scalar.
        """
        factor = (updates >= self.start).to(nll.dtype)

        generator = -functional_call(self.discriminator, _frozen(self.discriminator), (y,)).to(nll.dtype).mean()
        d_weight = factor * self.weight * adaptive_weight(nll, generator, last_weight)

        real = self.discriminator(x).to(nll.dtype)
        fake = self.discriminator(y.detach()).to(nll.dtype)
        hinge = 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())

        scalars = (d_weight, generator, hinge, real.mean(), fake.mean())
        metrics = {name: value.detach() for name, value in zip(self.names, scalars, strict=True)}
        return Adversarial(d_weight * generator + factor * hinge, metrics)


def adaptive_weight(nll: Tensor, generator: Tensor, last_weight: Tensor) -> Tensor:
    """``clamp(|grad nll| / (|grad generator| + 1e-4), 0, 10^4)``, by ``last_weight``; 0 where gradients are off.

    It is a number: no gradient passes through it. In a graph of ``torch.compile(fullgraph=True)`` it needs
    ``torch._dynamo.config.trace_autograd_ops``.
    """
    if not torch.is_grad_enabled():
        return torch.zeros_like(nll)
    norms = []
    for loss in (nll, generator):
        (gradient,) = torch.autograd.grad(loss, last_weight, retain_graph=True, allow_unused=True)
        if gradient is None:
            raise ValueError(
                "the reconstructions do not depend on last_weight, the weight of the decoder's last layer. With FSDP2 "
                "it must be whole until the loss is known: call fully_shard on blocks of the autoencoder and on the "
                "objective, not on the decoder or the autoencoder"
            )
        norms.append(torch.linalg.vector_norm(gradient.to(loss.dtype)))
    return (norms[0] / (norms[1] + 1e-4)).clamp(0, 1e4).detach()


def _frozen(module: nn.Module) -> dict[str, Tensor]:
    """The state of a module without gradients, whose running statistics are copies: they are updated elsewhere.

    Raises:
        ValueError: if FSDP2 shards a part of the module by itself: it would put its own parameters in their place.
    """
    if any(hasattr(part, "unshard") for part in module.modules()):
        raise ValueError(
            "the discriminator is sharded by itself, but its parameters must be those of the objective's shard; call "
            "fully_shard on blocks of the autoencoder and on the objective, not on the discriminator"
        )
    parameters = {name: value.detach() for name, value in module.named_parameters()}
    return parameters | {name: value.detach().clone() for name, value in module.named_buffers()}

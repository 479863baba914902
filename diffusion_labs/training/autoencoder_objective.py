"""What the training of a first-stage autoencoder minimises."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from diffusion_labs.training.adversarial_loss import AdversarialLoss
from diffusion_labs.training.base_objective import BaseObjective
from diffusion_labs.training.metric_means import MetricMeans


def absolute_error(y: Tensor, x: Tensor) -> Tensor:
    """``|y - x|``, elementwise."""
    return (y - x).abs()


def squared_error(y: Tensor, x: Tensor) -> Tensor:
    """``(y - x)^2``, elementwise."""
    return (y - x) ** 2


class Reconstructed(NamedTuple):
    """What an autoencoder made of a batch.

    Attributes:
        images: the reconstructions.
        regularisation: what keeps the latents in order, a scalar without its weight.
    """

    images: Tensor
    regularisation: Tensor


class AutoencoderObjective(BaseObjective):
    """``nll + weight * regularisation + game``: the loss of VQGAN and Latent Diffusion, of both networks in one scalar.

    ``nll`` is of the error of every value, ``error(y, x) + perceptual_weight * perceptual(x, y)``; ``game`` is the
    ``AdversarialLoss``, from update ``disc_start`` on (arXiv 2112.10752, appendix G). ``KLObjective`` and
    ``VQObjective`` say what the regularisation is, and how the errors become one number.

    One optimiser trains both networks: ``Adam(objective.parameter_groups(lr), betas=(0.5, 0.9))`` is two Adams, as
    Adam treats every parameter alone, and ``train`` clips the gradient of each group by itself. Both networks take
    their step at the same time; in the original code the discriminator's follows the autoencoder's.

    Args:
        autoencoder: the network.
        weight: of the regularisation.
        transform: from the batch to one with images in [-1, 1]; nothing by default.
        error: elementwise, of reconstructions and images; ``absolute_error`` (L1) or ``squared_error`` (L2).
        perceptual: from images and reconstructions to a distance for each, ``[b]``, such as ``LPIPS`` or
            ``FeatureLoss``; none by default. Its parameters are not trained.
        perceptual_weight: of the perceptual distance.
        discriminator: from images to logits, such as ``PatchDiscriminator``; none by default.
        disc_weight: of the generator's term, beside its adaptive weight.
        disc_start: updates before the discriminator begins.
        data_field: the images to read.
    """

    autoencoder: Any  # an Autoencoder: the type is not imported, as training knows no concrete component
    regulariser: str  # its name in the log
    updates: Tensor

    def __init__(
        self,
        autoencoder: nn.Module,
        *,
        weight: float,
        transform: Callable[[dict[str, Any]], Mapping[str, Any]] | None = None,
        error: Callable[[Tensor, Tensor], Tensor] = absolute_error,
        perceptual: nn.Module | None = None,
        perceptual_weight: float = 1.0,
        discriminator: nn.Module | None = None,
        disc_weight: float = 0.5,
        disc_start: int = 50_001,
        data_field: str = "x",
    ) -> None:
        super().__init__()
        self.autoencoder = autoencoder
        self.weight = weight
        self.transform = nn.Identity() if transform is None else transform
        self.error = error
        self.perceptual = None if perceptual is None else perceptual.requires_grad_(False)
        self.perceptual_weight = perceptual_weight
        self.game = (
            None if discriminator is None else AdversarialLoss(discriminator, weight=disc_weight, start=disc_start)
        )
        self.data_field = data_field
        self.register_buffer("updates", torch.zeros((), dtype=torch.long))
        parts = ["reconstruction", self.regulariser]
        parts += [] if self.perceptual is None else ["perceptual"]
        parts += [] if self.game is None else self.game.names
        self.means = MetricMeans(parts)

    def reconstruct(self, x: Tensor) -> Reconstructed:
        """Run the autoencoder on images; what a new kind of autoencoder writes."""
        raise NotImplementedError

    def nll(self, errors: Tensor) -> Tensor:
        """From the errors of all values ``[b, c, ...]`` to a scalar; what a new kind of autoencoder writes."""
        raise NotImplementedError

    def forward(self, batch: dict[str, Any]) -> Tensor:
        """The loss of a batch, float32 or better.

        Raises:
            KeyError: naming the field that is missing from the transformed batch.
        """
        data = self.transform(batch)
        if self.data_field not in data:
            raise KeyError(f"the transformed batch lacks '{self.data_field}'; it has {sorted(data)}")
        x = data[self.data_field]
        y, regularisation = self.reconstruct(x)

        dtype = torch.promote_types(x.dtype, torch.float32)
        errors = self.error(y.to(dtype), x.to(dtype))
        metrics = {"reconstruction": errors.mean(), self.regulariser: regularisation}
        if self.perceptual is not None:
            distance = self.perceptual(x, y).to(dtype)
            errors = errors + self.perceptual_weight * distance.reshape(-1, *[1] * (errors.dim() - 1))
            metrics["perceptual"] = distance.mean()
        nll = self.nll(errors)
        loss = nll + self.weight * regularisation

        if self.game is not None:
            game = self.game(x, y, nll, self.autoencoder.last_layer.weight, self.updates)
            loss = loss + game.loss
            metrics |= game.metrics
        self.means.add(metrics)
        return loss

    def after_update(self, step: int) -> None:
        """Note the number of updates."""
        self.updates.fill_(step)

    def metrics(self) -> dict[str, Tensor]:
        """The means of the parts of the loss, of ``d_weight`` and of the discriminator's logits."""
        return self.means.take()

    def parameter_groups(self, lr: float, disc_lr: float | None = None) -> list[dict[str, Any]]:
        """What an optimiser takes: the autoencoder's parameters, and then the discriminator's, if there is one.

        Args:
            lr: learning rate; the papers' is 4.5e-6 times the images of an update.
            disc_lr: the discriminator's, the same by default.
        """
        theirs = [] if self.game is None else list(self.game.parameters())
        other = {id(parameter) for parameter in theirs}
        ours = [value for value in self.parameters() if value.requires_grad and id(value) not in other]
        groups = [{"params": ours, "lr": lr}]
        return groups if self.game is None else [*groups, {"params": theirs, "lr": lr if disc_lr is None else disc_lr}]

"""What the training of an autoencoder with quantised latents minimises."""

from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn

from diffusion_labs.training.autoencoder_objective import AutoencoderObjective, Reconstructed
from diffusion_labs.training.code_revival import CodeRevival
from diffusion_labs.training.world import is_distributed


class VQObjective(AutoencoderObjective):
    """The objective of a ``VQModel``.

    ``nll = mean(errors)``, over the values, too, as the published models were trained; the regularisation is the
    loss of the codebook. The log has ``perplexity`` and ``codes_used`` (see ``CodeUsage``), of all codes of all
    processes since its last line.

    Args:
        autoencoder: a ``VQModel``.
        codebook_weight: weight of the loss of the codebook.
        revive_after: updates after which a code that none of them used is replaced, see ``CodeRevival``; ``None`` for
            never, as in the papers.
        disc_weight: see ``AutoencoderObjective``.
        options: see there.
    """

    regulariser = "codebook"
    counts: Tensor

    def __init__(
        self,
        autoencoder: nn.Module,
        *,
        codebook_weight: float = 1.0,
        revive_after: int | None = 500,
        disc_weight: float = 0.75,
        **options: Any,
    ) -> None:
        super().__init__(autoencoder, weight=codebook_weight, disc_weight=disc_weight, **options)
        num_codes, code_dim = self.autoencoder.quantizer.codebook.shape
        self.revival = None if revive_after is None else CodeRevival(num_codes, code_dim, window=revive_after)
        self.register_buffer("counts", torch.zeros(num_codes, dtype=torch.long), persistent=False)

    def reconstruct(self, x: Tensor) -> Reconstructed:
        """The images of the codes, and the loss of the codebook."""
        h = self.autoencoder.encode(x)
        quantized = self.autoencoder.quantizer(h)
        if self.training:
            indices = quantized.indices.flatten()
            counts = torch.zeros_like(self.counts).index_add(0, indices, torch.ones_like(indices))
            self.counts.add_(counts)
            if self.revival is not None:
                self.revival.observe(h, counts)
        return Reconstructed(self.autoencoder.render(quantized.z), quantized.loss)

    def nll(self, errors: Tensor) -> Tensor:
        """``mean(errors)``."""
        return errors.mean()

    def awaits(self, step: int) -> bool:
        """Where codes are revived, which changes the codebook."""
        return self.revival is not None and step % self.revival.window == 0

    def after_update(self, step: int) -> None:
        """Revive the codes that are due."""
        super().after_update(step)
        if self.revival is not None:
            self.revival.after_update(self.autoencoder.quantizer.codebook, step)

    def metrics(self) -> dict[str, Tensor]:
        """Those of the parts, and of the use of the codes by all processes."""
        if is_distributed():
            torch.distributed.all_reduce(self.counts, group=self.peers)
        usage = self.autoencoder.quantizer.usage(self.counts)
        self.counts.zero_()
        return super().metrics() | {"perplexity": usage.perplexity, "codes_used": usage.used}

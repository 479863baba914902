"""Inpainting by replacement."""

from torch import Tensor, nn

from diffusion_labs.adapters.adapter import Adapter
from diffusion_labs.conditioning import ConditionalInputs
from diffusion_labs.output import DiffusionOutput, change_predictions
from diffusion_labs.predictors.predictor import Predictor


class KnownRegion(Adapter):
    """Inpainting with any network: where the image is known, the estimate of the clean data is the known image.

    There the prediction becomes the one that says so, ``Predictor.prediction_of(image, x_t)``. So every sampler keeps
    the known pixels at ``alpha_s image + sigma_s eps``, for the network to see, and ends with exactly them.

    This is the replacement of RePaint (arXiv 2201.09865, Alg. 1) and Score SDE (arXiv 2011.13456, App. I.2) with one
    difference. They draw the known pixels from q(x_s | x_0) at each level, with noise unrelated to that of the level
    before. Here the sampler draws them: from q(x_s | x_t, x_0) in ``DDPMSampler``, which is the same distribution at
    each level, and the process's own from one level to the next; deterministic samplers keep their first noise.

    Replacement does not sample the conditional distribution: the unknown pixels are drawn as if the known ones were
    still open. ``RePaintSampler`` reduces the error; ``LinearPosterior`` has none for Gaussian data.

    In train mode, or without mask and image, the model is called alone. The keys are those of ``InPainting``.

    Args:
        model: network or adapter.
        predictor: what the model predicts.
        mask_key: name of the mask, ``[b, 1, ...]``: 1 where the image is to be painted, 0 where known; fractions blend.
        image_key: name of the image, ``[b, c, ...]``; its values where it is to be painted are not used.
    """

    needs = frozenset({"size", "scale", "time"})

    def __init__(
        self, model: nn.Module, predictor: Predictor, *, mask_key: str = "mask", image_key: str = "masked_image"
    ) -> None:
        super().__init__(model, [mask_key, image_key])
        self.predictor = predictor
        self.mask_key = mask_key
        self.image_key = image_key

    def forward(
        self, x: Tensor, timestep: Tensor, conditional_inputs: ConditionalInputs | None = None
    ) -> DiffusionOutput:
        """See ``ConditionalModule``.

        Raises:
            ValueError: if only one of mask and image is given, or their shape does not fit.
        """
        conditions = self.check_conditions(conditional_inputs, x)
        output: DiffusionOutput = self.model(x, timestep, conditions)
        mask, image = conditions.get(self.mask_key), conditions.get(self.image_key)
        if self.training or (mask is None and image is None):
            return output
        if mask is None or image is None:
            raise ValueError(f"a known region needs both '{self.mask_key}' and '{self.image_key}', or neither")
        batch, channels, *size = output.prediction.shape
        for name, value, shape in ((self.mask_key, mask, [batch, 1]), (self.image_key, image, [batch, channels])):
            if list(value.shape) != shape + size:
                raise ValueError(
                    f"conditional_inputs['{name}'] has shape {list(value.shape)}; for this x it must be {shape + size}"
                )

        xt = x[:, :channels]  # without the channels that adapters concatenate
        known = self.predictor.prediction_of(image.to(x.dtype), xt, timestep)
        mask = mask.to(x.dtype)
        return change_predictions(output, lambda y: mask * y + (1 - mask) * known)

"""Classifier guidance."""

import torch
from torch import Tensor, nn

from diffusion_labs.adapters.adapter import Adapter
from diffusion_labs.adapters.guidance import check_differentiable
from diffusion_labs.conditioning import ConditionalInputs, without_guidance
from diffusion_labs.output import DiffusionOutput, change_predictions
from diffusion_labs.predictors.predictor import Predictor, at_least_float32


class ClassifierGuidance(Adapter):
    """Adds the gradient of a classifier of noisy data to the score (ADM, arXiv 2105.05233, Sec. 4.3, Alg. 2).

    ``score + guidance_scale * grad log p(class | x_t)``, in any parameterisation (``Predictor.add_to_score``). In
    ``DDPMSampler`` it moves the mean by ``guidance_scale * (sigma_ts^2 / alpha_ts) * gradient``, which is Alg. 1.

    In train mode, or without a class, the model is called alone. A sample whose class is beyond the classifier's is not
    guided: the null class of classifier-free guidance is none here either. The classifier is trained elsewhere; here it
    is frozen and kept in eval mode.

    Args:
        model: network or adapter; it may be conditional on the class itself.
        classifier: ``classifier(x_t, timestep)`` returns logits, ``[b, classes]``.
        predictor: what the model predicts.
        guidance_scale: 1 is Bayes' rule, more is sharper, 0 no guidance. May be set at any time.
        class_key: name of the class, integers ``[b]``.
    """

    needs = frozenset({"size", "scale", "time"})

    def __init__(
        self,
        model: nn.Module,
        classifier: nn.Module,
        predictor: Predictor,
        *,
        guidance_scale: float = 1.0,
        class_key: str = "class",
    ) -> None:
        super().__init__(model, [class_key])
        self.classifier = classifier.requires_grad_(False).eval()
        self.predictor = predictor
        self.guidance_scale = guidance_scale
        self.class_key = class_key

    def train(self, mode: bool = True) -> "ClassifierGuidance":
        """Set the mode of all but the classifier."""
        super().train(mode)
        self.classifier.eval()
        return self

    def forward(
        self, x: Tensor, timestep: Tensor, conditional_inputs: ConditionalInputs | None = None
    ) -> DiffusionOutput:
        """See ``ConditionalModule``."""
        conditions = self.check_conditions(conditional_inputs, x)
        output: DiffusionOutput = self.model(x, timestep, conditions)
        classes = conditions.get(self.class_key)
        if self.training or classes is None or self.guidance_scale == 0:
            return output

        check_differentiable()
        xt = x[:, : output.prediction.shape[1]]  # without the channels that adapters concatenate
        gradient = self.guidance_scale * torch.func.grad(self.log_likelihood)(xt, timestep, classes)
        return change_predictions(output, lambda y: self.predictor.add_to_score(y, gradient, timestep))

    def unguided(self) -> nn.Module:
        """The model inside."""
        return without_guidance(self.model)

    def log_likelihood(self, xt: Tensor, timestep: Tensor, classes: Tensor) -> Tensor:
        """``log p(class | x_t)``, summed over the samples that have one of the classifier's classes."""
        log_p = at_least_float32(self.classifier(xt, timestep)).log_softmax(1)
        known = classes < log_p.shape[1]
        index = classes.long().where(known, 0)[:, None]
        return log_p.gather(1, index)[:, 0].where(known, 0.0).sum()

"""The text encoder of CLIP."""

import threading
from collections.abc import Callable, Mapping
from typing import Any

from jaxtyping import Int
from torch import Tensor, nn

from diffusion_labs.models.encoders.pretrained_text_encoder import PretrainedTextEncoder

States = Callable[[Any, Tensor], tuple[Tensor, Any]]


def last_states(model: Any, ids: Tensor) -> tuple[Tensor, Any]:
    """The states of the last layer after the final norm, and the model's output: Stable Diffusion 1."""
    output = model(input_ids=ids)
    return output.last_hidden_state, output


def penultimate_states(model: Any, ids: Tensor) -> tuple[Tensor, Any]:
    """The states of the last layer but one, and the model's output: Stable Diffusion XL."""
    states: list[Tensor] = []
    thread = threading.get_ident()

    def note(layer: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        if threading.get_ident() == thread:
            states.append(args[0] if args else kwargs["hidden_states"])

    # Not output_hidden_states: transformers leaves hooks behind that cannot be pickled
    handle = _transformer(model).encoder.layers[-1].register_forward_pre_hook(note, with_kwargs=True)
    try:
        output = model(input_ids=ids)
    finally:
        handle.remove()
    return states[0], output


def normalised_penultimate_states(model: Any, ids: Tensor) -> tuple[Tensor, Any]:
    """Those of ``penultimate_states`` after the final norm: Stable Diffusion 2, with all layers of its OpenCLIP.

    The model that diffusers has for it lacks the last layer, so there these are ``last_states``.
    """
    states, output = penultimate_states(model, ids)
    return _transformer(model).final_layer_norm(states), output


def _transformer(model: Any) -> Any:
    """The model itself, or that below a projection."""
    return getattr(model, "text_model", model)


class CLIPTextEncoder(PretrainedTextEncoder):
    """The states of CLIP's text encoder (arXiv 2103.00020) at all of its positions, padding included and unmasked.

    That is how Stable Diffusion takes them: its encoder is causal, and its U-Net has been trained on the padding.

    Args:
        model: ``CLIPTextModel`` of transformers; or ``CLIPTextModelWithProjection``, whose pooled output is projected.
        tokenizer: likewise.
        states: which states: ``last_states``, ``penultimate_states`` or ``normalised_penultimate_states``.
        name: the conditional input of the network for them, ``[b, n, d]``.
        pooled_name: the one for the pooled output, ``[b, d]``; not given if ``None``.
        frozen: whether the model gets no gradients and stays in eval mode.
    """

    model_class = "CLIPTextModel"
    padding = "max_length"

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any = None,
        *,
        states: States = last_states,
        name: str = "text",
        pooled_name: str | None = None,
        frozen: bool = True,
    ) -> None:
        names = (name,) if pooled_name is None else (name, pooled_name)
        length: int = model.config.max_position_embeddings  # type: ignore[union-attr, assignment]
        super().__init__(model, tokenizer, names=names, max_length=length, frozen=frozen)
        self.name = name
        self.pooled_name = pooled_name
        self.states = states

    def encode(self, ids: Int[Tensor, "b n"]) -> dict[str, Tensor]:
        """The states, and the pooled output if it has a name."""
        states, output = self.states(self.model, ids)
        pooled = output.text_embeds if "text_embeds" in output else output.pooler_output
        return dict(zip(self.names, (states, pooled), strict=False))

"""From conditions as people give them to those that a network takes."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

from torch import Tensor, nn

from diffusion_labs.conditioning import negative_of
from diffusion_labs.models.encoders.text_encoder import encode_distinct


class Conditioner(nn.Module):
    """Encoders by the name of the condition that they encode; other conditions pass as they are.

    An encoder maps a condition to conditional inputs of the network by name, for example a batch of texts to ``text``
    and ``text_mask``. Each distinct text is encoded once. ``negative_<condition>`` is encoded likewise, to
    ``negative_text`` and ``negative_text_mask``, which ``CFGuidance`` guides away from.

    What stands for the absence of a condition is encoded too, if the encoder has a method ``null``: "" for texts, the
    class n for classes. An absent condition is that, and so is an absent negative, which makes it what ``CFGuidance``
    drops to in training and guides away from in sampling, learned where the encoder is.

    Args:
        encoders: by the name of the condition.

    Example:
        >>> conditioner = Conditioner({"caption": ByteTextEncoder(32)})
        >>> inputs = conditioner({"caption": ["a cat", "a dog", "a cat"]}, torch.randn(3, 4, 8, 8))
        >>> {name: list(value.shape) for name, value in inputs.items()}
        {'text': [3, 6, 32], 'text_mask': [3, 6], 'negative_text': [3, 1, 32], 'negative_text_mask': [3, 1]}
    """

    def __init__(self, encoders: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict(encoders)

    def forward(
        self, conditional_inputs: Mapping[str, Any] | None, x: Tensor, understood: Collection[str] | None = None
    ) -> dict[str, Tensor]:
        """The conditional inputs of the network.

        Args:
            conditional_inputs: conditions by name: a tensor, or a list of texts.
            x: data ``[b, ...]``, whose batch the conditions are for.
            understood: the names that the network takes; nothing else stands for absent conditions. All if ``None``.

        Raises:
            ValueError: if a condition is given twice, encoded and not.
        """
        given = dict(conditional_inputs or {})
        inputs: dict[str, Tensor] = {}
        for condition, encoder in self.encoders.items():
            for rename in (str, negative_of):
                if rename(condition) in given:
                    inputs |= _renamed(_encode(encoder, given.pop(rename(condition))), rename)
        twice = sorted(inputs.keys() & given.keys())
        if twice:
            raise ValueError(f"conditional_inputs has {twice}, but also what is encoded to them; leave out one of them")
        inputs |= given

        for encoder in self.encoders.values():
            null: Callable[[], Tensor] | None = getattr(encoder, "null", None)
            if null is None:
                continue
            nulls = {name: value.expand(len(x), *value.shape[1:]) for name, value in encoder(null()).items()}
            for rename in (str, negative_of):
                absent = _renamed(nulls, rename)
                if not inputs.keys() & absent.keys():
                    inputs |= {
                        name: value for name, value in absent.items() if understood is None or name in understood
                    }
        return inputs


def _encode(encoder: nn.Module, value: Any) -> dict[str, Tensor]:
    encoded: dict[str, Tensor] = encoder(value) if isinstance(value, Tensor) else encode_distinct(encoder, value)
    return encoded


def _renamed(inputs: Mapping[str, Tensor], rename: Callable[[str], str]) -> dict[str, Tensor]:
    return {rename(name): value for name, value in inputs.items()}

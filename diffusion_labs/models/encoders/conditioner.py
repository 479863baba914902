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

    What stands for the absence of a condition is encoded too, if the encoder has a method ``null`` and ``names`` for
    what it gives: "" for texts, the class n for classes. An absent condition is that, and so is an absent negative,
    which makes it what ``CFGuidance`` drops to in training and guides away from in sampling, learned where the encoder
    is.

    Args:
        encoders: by the name of the condition.
        encoded_nulls: the conditions whose absence is encoded; all that can be if ``None``. The absence of others is
            left to ``CFGuidance`` and the network, for which it is zeros, as for Stable Diffusion XL.

    Raises:
        ValueError: if ``encoded_nulls`` names no encoder.

    Example:
        >>> conditioner = Conditioner({"caption": ByteTextEncoder(32)})
        >>> inputs = conditioner({"caption": ["a cat", "a dog", "a cat"]}, torch.randn(3, 4, 8, 8))
        >>> {name: list(value.shape) for name, value in inputs.items()}
        {'text': [3, 6, 32], 'text_mask': [3, 6], 'negative_text': [3, 1, 32], 'negative_text_mask': [3, 1]}
    """

    def __init__(self, encoders: Mapping[str, nn.Module], *, encoded_nulls: Collection[str] | None = None) -> None:
        super().__init__()
        unknown = set(encoded_nulls or ()) - set(encoders)
        if unknown:
            raise ValueError(f"encoded_nulls names {sorted(unknown)}, but there are encoders for {sorted(encoders)}")
        self.encoders = nn.ModuleDict(encoders)
        self.encoded_nulls = None if encoded_nulls is None else frozenset(encoded_nulls)

    def forward(
        self, conditional_inputs: Mapping[str, Any] | None, x: Tensor, understood: Collection[str] | None = None
    ) -> dict[str, Tensor]:
        """The conditional inputs of the network.

        Args:
            conditional_inputs: conditions by name: a tensor, or a list of texts.
            x: data ``[b, ...]``, whose batch the conditions are for.
            understood: the names that the network takes; nothing else stands for absent conditions. All if ``None``.

        Raises:
            ValueError: if a condition is given twice, encoded and not, or is neither encoded nor a tensor.
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
        raw = [name for name, value in given.items() if not isinstance(value, Tensor)]
        if raw:
            raise ValueError(
                f"conditional_inputs has {raw}, which are no tensors, and there are encoders for "
                f"{list(self.encoders)}; rename them"
            )
        inputs |= given

        for condition, encoder in self.encoders.items():
            absent = self._absent(encoder, inputs, understood)
            if absent and (self.encoded_nulls is None or condition in self.encoded_nulls):
                nulls = encoder(encoder.null())  # type: ignore[operator]
                for name, renamed in absent:
                    inputs[renamed] = nulls[name].expand(len(x), *nulls[name].shape[1:])
        return inputs

    def _absent(
        self, encoder: nn.Module, inputs: Mapping[str, Tensor], understood: Collection[str] | None
    ) -> list[tuple[str, str]]:
        """What an encoder gives, and the names for it in the network, of which none is given yet."""
        absent: list[tuple[str, str]] = []
        names: tuple[str, ...] = encoder.names if hasattr(encoder, "null") else ()  # type: ignore[assignment]
        for rename in (str, negative_of):
            renamed = [(name, rename(name)) for name in names]
            if not any(name in inputs for _, name in renamed):
                absent += [pair for pair in renamed if understood is None or pair[1] in understood]
        return absent


def _encode(encoder: nn.Module, value: Any) -> dict[str, Tensor]:
    encoded: dict[str, Tensor] = encoder(value) if isinstance(value, Tensor) else encode_distinct(encoder, value)
    return encoded


def _renamed(inputs: Mapping[str, Tensor], rename: Callable[[str], str]) -> dict[str, Tensor]:
    return {rename(name): value for name, value in inputs.items()}

"""Null values of conditions, dropping them in training, and what stands against them in sampling."""

import inspect
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from diffusion_labs.adapters.adapter import Adapter
from diffusion_labs.conditioning import ConditionalInputs, mask_of, negative_of
from diffusion_labs.randomness import SAMPLE_KEY, KeyedGenerator, independent_uniform


class ConditionDropout(Adapter):
    """Base class of guidance without a classifier: knows what each condition is where there is none.

    Args and null values: see ``CFGuidance``.
    """

    def __init__(
        self,
        model: nn.Module,
        dropout: Mapping[str | tuple[str, ...], float],
        null: Mapping[str, Tensor | float] | None = None,
    ) -> None:
        if not isinstance(dropout, Mapping):
            raise TypeError(f"dropout ({dropout!r}) must be probabilities by name, such as {{'class': 0.1}}")
        groups = tuple(((key,) if isinstance(key, str) else key, p) for key, p in dropout.items())
        guided = tuple(name for names, _ in groups for name in names)
        understood: frozenset[str] = getattr(model, "condition_names", None) or frozenset()
        masks = [mask_of(name) for name in guided if mask_of(name) in understood]
        super().__init__(model, (SAMPLE_KEY, *map(negative_of, (*guided, *masks))))
        self.groups = groups
        self.streams = [zlib.crc32(" ".join(("drop", *names)).encode()) for names, _ in groups]  # of random numbers
        self.guided = guided
        nulls = {**self.null_conditions, **(null or {})}
        self._check(dropout, null or {})
        for name in self.guided:
            if name not in nulls:
                continue
            value = nulls[name]
            if isinstance(value, nn.Parameter):
                self.register_parameter(f"null_{name}", value)
            else:
                self.register_buffer(f"null_{name}", torch.as_tensor(value), persistent=False)

    def constructor_arguments(self) -> dict[str, Any]:
        """What the constructor would be given for the same adapter as it is now."""
        own = inspect.signature(type(self).__init__).parameters
        nulls = {name: getattr(self, f"null_{name}") for name in self.guided if hasattr(self, f"null_{name}")}
        return {
            **{name: getattr(self, name) for name in own if name not in ("self", "dropout", "null")},
            "dropout": {names[0] if len(names) == 1 else names: p for names, p in self.groups},
            "null": nulls,
        }

    def prepared(
        self, given: ConditionalInputs, batch: int, device: torch.device
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The conditions, with nulls for those that are absent, and what stands against them."""
        return self.oppose(*self.complete(given, batch, device), batch, device)

    def complete(
        self, given: ConditionalInputs, batch: int, device: torch.device
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The conditions, with nulls for those that are absent, and the nulls of all, with the masks of tokens.

        Null tokens are as many as they are, one of a vector, however long the sequence that they take the place of.
        """
        conditions, nulls = dict(given), {}
        for name in self.guided:
            null = self._null(name, given.get(name), batch)
            if null is None:
                continue
            nulls[name] = null
            own: Tensor | None = getattr(self, f"null_{name}", None)
            if self._has_mask(name):
                count, length, mask = 1 if own is None or own.ndim < 2 else own.shape[0], null.shape[1], mask_of(name)
                nulls[mask] = (torch.arange(length, device=device) < count).expand(batch, -1)
                if name in given:
                    conditions[mask] = pad(given.get(mask, all_valid(given[name])), length)
                    conditions[name] = pad(given[name], length)
                conditions.setdefault(mask, nulls[mask])
            conditions.setdefault(name, null)
        return conditions, nulls

    def drop(self, conditions: Mapping[str, Tensor], nulls: Mapping[str, Tensor], x: Tensor) -> dict[str, Tensor]:
        """Conditions of which some samples' are replaced by their null values.

        Whose, is a function of the sample where the conditions have its ``sample_key``, and else drawn by torch.
        """
        dropped = dict(conditions)
        keys = conditions.get(SAMPLE_KEY)
        for (names, p), stream in zip(self.groups, self.streams, strict=True):
            drop = independent_uniform(x, None if keys is None else KeyedGenerator(keys, stream)) < p
            for name in (*names, *map(mask_of, names)):
                if name in nulls:
                    chosen = drop.reshape(-1, *[1] * (conditions[name].ndim - 1))
                    dropped[name] = torch.where(chosen, nulls[name], conditions[name])
        return dropped

    def oppose(
        self, conditions: Mapping[str, Tensor], nulls: Mapping[str, Tensor], batch: int, device: torch.device
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The conditions, and what stands against them: the negative where one is given, null elsewhere.

        A condition and its negative may have different numbers of tokens; the shorter is padded, and masked.

        Raises:
            ValueError: if they differ, and the network takes no mask.
        """
        conditions, opposed = dict(conditions), dict(nulls)
        for name in self.guided:
            if negative_of(name) not in conditions:
                continue
            negative, mask = conditions[negative_of(name)], mask_of(name)
            if name not in conditions:  # null to the network by its absence, which a batch of both cannot have
                _, like_negative = self.complete({name: negative}, batch, device)
                conditions |= {key: like_negative[key] for key in (name, mask) if key in like_negative}
            condition = conditions[name]

            if self._has_mask(name):
                valid = conditions.get(mask, all_valid(condition))
                negative_valid = conditions.get(negative_of(mask), all_valid(negative))
                length = max(condition.shape[1], negative.shape[1])
                condition, negative = pad(condition, length), pad(negative, length)
                conditions[mask], opposed[mask] = pad(valid, length), pad(negative_valid, length)
            if negative.shape != condition.shape:
                raise ValueError(
                    f"conditional_inputs['{negative_of(name)}'] has shape {list(negative.shape)}, '{name}' "
                    f"{list(condition.shape)}; the network takes no '{mask}', so they must be equal"
                )
            conditions[name], opposed[name] = condition, negative.to(condition.dtype)
        return conditions, opposed

    def _has_mask(self, name: str) -> bool:
        """Whether the condition has any number of tokens, and the network a mask for them."""
        return mask_of(name) in (self.condition_names or ()) and None in self.condition_shapes.get(name, ())

    def _null(self, name: str, condition: Tensor | None, batch: int) -> Tensor | None:
        """The null value of a condition for the batch; ``None`` if it is absent, and null to the network so."""
        null: Tensor | None = getattr(self, f"null_{name}", None)
        if condition is not None:
            shape = condition.shape
        elif null is None:
            return None
        else:
            sides = self.condition_shapes.get(name, tuple(null.shape))
            shape = torch.Size([batch, *(1 if side is None else side for side in sides)])
        if null is not None:
            null = null if condition is None else null.to(condition.dtype)
            if null.ndim < 2 or not self._has_mask(name):
                return null.expand(shape)
            return pad(null[None], max(shape[1], null.shape[0])).expand(batch, -1, -1)
        assert condition is not None
        if not condition.is_floating_point():
            raise ValueError(
                f"conditional_inputs['{name}'] has integers, which have no zero embedding; "
                f"give {type(self).__name__} null={{'{name}': the index of the null class}}"
            )
        return torch.zeros_like(condition)

    def _check(self, dropout: Mapping[str | tuple[str, ...], float], null: Iterable[str]) -> None:
        for key, p in dropout.items():
            if not 0 <= p <= 1:
                raise ValueError(f"dropout of {key!r} is {p}; a probability must be in [0, 1]")
        if len(set(self.guided)) < len(self.guided):
            raise ValueError(f"dropout names a condition twice: {self.guided}")
        understood: frozenset[str] | None = getattr(self.model, "condition_names", None)
        for place, names, known in (("dropout", self.guided, understood), ("null", null, self.guided)):
            unknown = set() if known is None else set(names) - set(known)
            if unknown:
                raise ValueError(f"{place} names {sorted(unknown)}, but only {sorted(known or ())} can be guided")


def all_valid(tokens: Tensor) -> Tensor:
    """The mask of tokens that all are valid, ``[b, n]``."""
    return tokens.new_ones(tokens.shape[:2], dtype=torch.bool)


def pad(value: Tensor, length: int) -> Tensor:
    """Tokens, or their mask, ``[b, n, ...]``, with zeros up to a length; the same tensor if it has that."""
    if value.shape[1] == length:
        return value
    return torch.cat([value, value.new_zeros(value.shape[0], length - value.shape[1], *value.shape[2:])], dim=1)

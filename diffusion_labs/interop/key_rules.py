"""Names of parameters in foreign weights, as tables of rules that are read in both directions."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

_SLOT = re.compile(r"\{(?:(\d+)-|(\d+)\*)?([a-z]\w*)(?:\+(\d+))?\}|(\*)")
_SHOWN = 10  # keys of a kind that an error lists


class TensorChange(NamedTuple):
    """A change of a tensor, and the one that undoes it."""

    to_ours: Callable[[Tensor], Tensor]
    to_theirs: Callable[[Tensor], Tensor]


UNCHANGED = TensorChange(lambda tensor: tensor, lambda tensor: tensor)


class KeyRule(NamedTuple):
    """Two patterns that stand for the same parameters.

    In a pattern ``{name}`` is a number, ``{name+1}``, ``{3-name}`` and ``{2*name}`` are numbers computed from it, ``*``
    is any one part between dots, and all else stands for itself. ``{3-name}`` reverses the order of four levels, and
    ``{2*name+1}`` is every other one of them.

    Attributes:
        theirs: the pattern of the foreign keys.
        ours: the pattern of our keys.
        change: how the tensors differ.

    Example:
        >>> rule = KeyRule("up.{level}.block.{i}.norm1.*", "levels.{3-level}.block_{i}.norm_in.*")
        >>> KeyRules([rule]).our_key("up.0.block.2.norm1.bias")
        'levels.3.block_2.norm_in.bias'
    """

    theirs: str
    ours: str
    change: TensorChange = UNCHANGED


def nested(places: Mapping[str, str], rules: Iterable[KeyRule]) -> list[KeyRule]:
    """The rules of a block, at each of the places where such blocks are: ``{their prefix: our prefix}``."""
    return [
        KeyRule(f"{theirs}.{rule.theirs}", f"{ours}.{rule.ours}", rule.change)
        for rule in rules
        for theirs, ours in places.items()
    ]


class Pattern:
    """One side of a rule: finds the values of its names in a key, and writes a key from them."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.literals: list[str] = []
        self.slots: list[tuple[str, int, int]] = []  # name, constant c and factor f: the key has c + f * value
        regex, end = "", 0
        for match in _SLOT.finditer(text):
            reversed_from, times, name, added, star = match.groups()
            literal, end = text[end : match.start()], match.end()
            self.literals.append(literal)
            if star:
                name = f"*{sum(slot[0][0] == '*' for slot in self.slots)}"
            constant, factor = (int(reversed_from), -1) if reversed_from else (0, int(times or 1))
            self.slots.append((name, constant + int(added or 0), factor))
            regex += re.escape(literal) + (r"([^.]+)" if star else r"(0|[1-9]\d*)")
        self.literals.append(text[end:])
        self.regex = re.compile(regex + re.escape(text[end:]))

    @property
    def names(self) -> set[str]:
        return {name for name, _, _ in self.slots}

    def values(self, match: re.Match[str]) -> dict[str, str | int] | None:
        """The values of the names in a key that fits ``regex``, unless they contradict each other."""
        values: dict[str, str | int] = {}
        for (name, constant, factor), text in zip(self.slots, match.groups(), strict=True):
            value: str | int = text
            if name[0] != "*":
                value, rest = divmod(int(text) - constant, factor)
                if value < 0 or rest:
                    return None
            if values.setdefault(name, value) != value:
                return None
        return values

    def key(self, values: Mapping[str, str | int]) -> str | None:
        """The key of these values, if there is one: numbers in keys are not negative."""
        key = self.literals[0]
        for (name, constant, factor), literal in zip(self.slots, self.literals[1:], strict=True):
            value = values[name]
            if isinstance(value, int):
                value = constant + factor * value
                if value < 0:
                    return None
            key += f"{value}{literal}"
        return key


class KeyRules:
    """A table of rules between the keys of foreign weights and ours, read in both directions.

    Args:
        rules: at most one of them may fit any key.
        ignored: patterns of foreign keys that are no part of the module, such as those of its loss.
        older: older spellings of foreign keys, as rules from old to new; they are read, and never written.
        joined: parts of foreign keys that stand for the rows of one tensor of ours, from the first to the last: with
            ``("to_q", "to_k")`` the rules have ``to_q,to_k``, where the foreign keys have one of the two.

    Raises:
        ValueError: for a rule whose sides have different names.
    """

    def __init__(
        self,
        rules: Sequence[KeyRule],
        *,
        ignored: Sequence[str] = (),
        older: Sequence[KeyRule] = (),
        joined: Sequence[Sequence[str]] = (),
    ) -> None:
        self.rules = [(Pattern(rule.theirs), Pattern(rule.ours), rule.change) for rule in rules]
        self.older = [(Pattern(rule.theirs), Pattern(rule.ours), rule.change) for rule in older]
        self.ignored = [Pattern(pattern) for pattern in ignored]
        self.joined = [tuple(names) for names in joined]
        for theirs, ours, _ in (*self.rules, *self.older):
            if theirs.names != ours.names:
                raise ValueError(
                    f"the rule from {theirs.text!r} to {ours.text!r} has {sorted(theirs.names ^ ours.names)} on one "
                    "side only; both sides need the same names"
                )

    def our_key(self, key: str) -> str | None:
        """Our key for a foreign one, or ``None``."""
        found = _translate(self._newest(key), [(theirs, ours, change.to_ours) for theirs, ours, change in self.rules])
        return None if found is None else found[0]

    def their_key(self, key: str) -> str | None:
        """The foreign key for one of ours, or ``None``."""
        found = _translate(key, [(ours, theirs, change.to_theirs) for theirs, ours, change in self.rules])
        return None if found is None else found[0]

    def to_ours(self, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
        """Rename and change foreign tensors.

        Returns:
            Ours, and the foreign keys that no rule knows.

        Raises:
            ValueError: if two keys become one.
        """
        table = [(theirs, ours, change.to_ours) for theirs, ours, change in self.rules]
        newest = {key: (self._newest(key), value) for key, value in tensors.items()}
        return _translate_all(_join(newest, self.joined), table, self.ignored)

    def to_theirs(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Rename and change our tensors.

        Raises:
            ValueError: for a key that no rule knows, or if two keys become one.
        """
        table = [(ours, theirs, change.to_theirs) for theirs, ours, change in self.rules]
        translated, unknown = _translate_all({key: (key, value) for key, value in tensors.items()}, table, [])
        if unknown:
            raise ValueError(f"the other format has no name for {_some(unknown)}; the module is not one that it knows")
        return _part(translated, self.joined)

    def _newest(self, key: str) -> str:
        found = _translate(key, [(old, new, change.to_ours) for old, new, change in self.older])
        return key if found is None else found[0]


class Mismatch(NamedTuple):
    """What did not fit: foreign keys that the module has and the weights have not, and the other way round."""

    missing: list[str]
    unexpected: list[str]


def load_foreign(module: nn.Module, tensors: Mapping[str, Tensor], rules: KeyRules, *, strict: bool = True) -> Mismatch:
    """Copy foreign weights into a module.

    Args:
        module: keeps its dtype and device.
        tensors: the foreign weights.
        rules: between their keys and those of the module.
        strict: refuse weights that do not fit key by key; if false, what fits is loaded and the rest returned.

    Raises:
        ValueError: listing the keys that are missing, those that are unexpected, and wrong shapes, by the foreign
            names. The module is then as it was.
    """
    ours, unknown = rules.to_ours(tensors)
    state = module.state_dict()
    missing = [rules.their_key(key) or key for key in state if key not in ours]
    unexpected = unknown + [rules.their_key(key) or key for key in ours if key not in state]
    shapes = [
        f"{rules.their_key(key) or key}: {list(value.shape)} instead of {list(state[key].shape)}"
        for key, value in ours.items()
        if key in state and value.shape != state[key].shape
    ]
    kinds = [  # floats of 8 bits are cast, as those of 16 are; integers would need the scale of their quantisation
        f"{rules.their_key(key) or key}: {value.dtype} instead of {state[key].dtype}"
        for key, value in ours.items()
        if key in state and state[key].is_floating_point() and not value.is_floating_point()
    ]
    problems = [
        f"{len(keys)} {what}: {_some(keys)}"
        for what, keys in (
            ("missing", missing if strict else []),
            ("unexpected", unexpected if strict else []),
            ("of another shape (after renaming)", shapes),
            ("that are no floats", kinds),
        )
        if keys
    ]
    if problems:
        raise ValueError(
            f"the weights are not those of this {type(module).__name__}: {'; '.join(problems)}. Build it with the "
            "sizes of the weights, or read them with the rules of their format"
        )
    module.load_state_dict({key: value for key, value in ours.items() if key in state}, strict=strict)
    return Mismatch(missing, unexpected)


def _translate(
    key: str, table: Sequence[tuple[Pattern, Pattern, Callable[[Tensor], Tensor]]]
) -> tuple[str, Callable[[Tensor], Tensor]] | None:
    fits = []
    for source, target, change in table:
        match = source.regex.fullmatch(key)
        if match is None:  # of most rules
            continue
        values = source.values(match)
        new = None if values is None else target.key(values)
        if new is not None:
            fits.append((new, change))
    if len(fits) > 1:
        raise ValueError(f"several rules fit {key!r}: to {[new for new, _ in fits]}; remove all but one")
    return fits[0] if fits else None


def _translate_all(
    tensors: Mapping[str, tuple[str, Tensor]],
    table: Sequence[tuple[Pattern, Pattern, Callable[[Tensor], Tensor]]],
    ignored: Sequence[Pattern],
) -> tuple[dict[str, Tensor], list[str]]:
    translated: dict[str, Tensor] = {}
    unknown = []
    for original, (key, tensor) in tensors.items():
        if any(pattern.regex.fullmatch(original) for pattern in ignored):
            continue
        found = _translate(key, table)
        if found is None:
            unknown.append(original)
            continue
        new, change = found
        if new in translated:
            raise ValueError(f"{original!r} and another key both stand for {new!r}; keep one of them")
        translated[new] = change(tensor)
    return translated, unknown


def _join(
    tensors: Mapping[str, tuple[str, Tensor]], joined: Sequence[tuple[str, ...]]
) -> dict[str, tuple[str, Tensor]]:
    """Make one tensor of those whose keys differ in one part only, wherever all of them are there."""
    result, originals = dict(tensors), {key: original for original, (key, _) in tensors.items()}
    for names in joined:
        for key in list(originals):
            if f".{names[0]}." not in key:
                continue
            siblings = [originals.get(key.replace(f".{names[0]}.", f".{name}.")) for name in names]
            parts = [result[original][1] for original in siblings if original is not None]
            if len(parts) < len(names) or len({part.shape for part in parts}) > 1:
                continue  # these keys fit no rule, and are reported as they are
            result = {original: value for original, value in result.items() if original not in siblings}
            whole = key.replace(f".{names[0]}.", f".{','.join(names)}.")
            result[whole] = (whole, torch.cat(parts))
    return result


def _part(tensors: Mapping[str, Tensor], joined: Sequence[tuple[str, ...]]) -> dict[str, Tensor]:
    """The opposite of ``_join``: as many equal parts as there are names."""
    result = dict(tensors)
    for names in joined:
        for key in [key for key in result if f".{','.join(names)}." in key]:
            parts = result.pop(key).chunk(len(names))
            result |= {key.replace(",".join(names), name): part for name, part in zip(names, parts, strict=True)}
    return result


def _some(keys: Sequence[str]) -> str:
    more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
    return f"{list(keys[:_SHOWN])}{more}"

"""From the labels that files hold to class numbers 0..n-1."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from diffusion_labs.data.errors import DataError

Label = int | str


def number_classes(
    labels: Sequence[Label],
    where: Callable[[int], str],
    *,
    class_names: Sequence[str] | None = None,
    also_present: Iterable[Label] = (),
) -> tuple[Tensor, tuple[str, ...]]:
    """Give each label the number of its class.

    Without ``class_names``, the classes are the labels that occur, in sorted order: labels 1..26
    become 0..25, named "1" to "26". With ``class_names``, class k is the label ``class_names[k]``, so
    that the numbering does not depend on which labels occur.

    Args:
        labels: integers or names, not both.
        where: from the position of a label to the place to name in an error.
        class_names: the classes, in the order of their numbers.
        also_present: labels of other splits, which count as occurring.

    Returns:
        The numbers, ``[n]`` int64, and the names of the classes.

    Raises:
        DataError: for a label that is not among ``class_names``; it names the place, the label and
            the labels allowed.
    """
    names = tuple(class_names) if class_names is not None else _sorted_names({*labels, *also_present})
    numbers = numbered(names)
    found = [class_number(label, numbers, partial(where, position)) for position, label in enumerate(labels)]
    return torch.tensor(found, dtype=torch.long), names


def numbered(names: Sequence[str]) -> dict[str, int]:
    """The number of each class.

    Raises:
        DataError: if two have one name.
    """
    numbers = {name: number for number, name in enumerate(names)}
    if len(numbers) < len(names):
        raise DataError(f"class_names has duplicates: {list(names)}; each class needs its own name")
    return numbers


def class_number(label: Label, numbers: Mapping[str, int], where: Callable[[], str]) -> int:
    """The number of the class of a label.

    Raises:
        DataError: if there is no such class; it names the place, the label and the labels allowed.
    """
    if str(label) not in numbers:
        raise DataError(
            f"{where()}: label {label!r} is out of range: the {len(numbers)} classes are "
            f"{_shortened(list(numbers))}. Correct the label, or give the right number of classes"
        )
    return numbers[str(label)]


def _sorted_names(labels: set[Label]) -> tuple[str, ...]:
    return tuple(str(label) for label in sorted(labels, key=lambda label: (isinstance(label, str), label)))


def _shortened(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 12 else f"{', '.join(names[:3])}, ..., {names[-1]}"

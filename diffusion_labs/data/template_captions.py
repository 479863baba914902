"""Captions for data sets that have classes."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor

from diffusion_labs.data.batches import Batch, MapDataset, collect
from diffusion_labs.data.errors import DataError
from diffusion_labs.data.fingerprint import fingerprint, fingerprint_of


class Classes(MapDataset, Protocol):
    """A data set of images of one shape that have classes, as all of the library's are."""

    @property
    def class_names(self) -> Sequence[str]: ...

    @property
    def image_shape(self) -> tuple[int, int, int]: ...


class TemplateCaptions:
    """A data set with a caption for each sample, made of the name of its class: ``"a photo of the digit three"``.

    The template of sample i is number ``i mod n``. Else it is the data set that it is given.

    Args:
        dataset: has classes.
        templates: of captions, with ``{name}`` for the name of the class, or ``{word}``.
        words: the class in a word, by its name; the name itself where there is none.

    Raises:
        DataError: without classes or templates, or for a template with another field, or one that is none.

    Example:
        >>> captioned = TemplateCaptions(Digits(), ["the digit {word}", "{name}"], words={"3": "three"})
        >>> captioned.caption(0, 3), captioned.caption(1, 3)
        ('the digit three', '3')
    """

    def __init__(self, dataset: Classes, templates: Sequence[str], *, words: Mapping[str, str] | None = None) -> None:
        if isinstance(templates, str):
            raise DataError(f"templates must be a list of them, but {templates!r} is one; give [{templates!r}]")
        if not dataset.class_names or not templates:
            raise DataError(
                f"captions need classes and templates, but there are {len(dataset.class_names)} and {len(templates)}"
            )
        self.dataset = dataset
        self.templates = tuple(templates)
        self.words = {name: (words or {}).get(name, name) for name in dataset.class_names}
        try:
            for index in range(len(self.templates)):
                self.caption(index, 0)
        except (KeyError, IndexError) as error:
            raise DataError(f"the fields of templates are {{name}} and {{word}}; {error} is none of them") from error
        except ValueError as error:
            raise DataError(
                f"a template of {self.templates} cannot be filled in ({error}); write {{{{ for a brace"
            ) from error

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes."""
        return tuple(self.dataset.class_names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """``(channels, height, width)``."""
        return self.dataset.image_shape

    def caption(self, index: int, label: int) -> str:
        """The caption of a sample of some class."""
        name = self.class_names[label]
        return self.templates[index % len(self.templates)].format(name=name, word=self.words[name])

    def fingerprint(self) -> str:
        """Of the data set's, if it has one, and the templates."""
        return fingerprint((fingerprint_of(self.dataset), self.templates))

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample = self.dataset[index]
        return {**sample, "caption": self.caption(range(len(self))[index], int(sample["class"]))}

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        batch = collect(self.dataset, indices)
        labels: Tensor = batch["class"]
        places = range(len(self))
        pairs = zip(indices, labels.tolist(), strict=True)
        return {**batch, "caption": [self.caption(places[index], label) for index, label in pairs]}

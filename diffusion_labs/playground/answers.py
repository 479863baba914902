"""What the buttons of the page do."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from diffusion_labs.playground.code import python_of
from diffusion_labs.playground.convergence import errors
from diffusion_labs.playground.painting import Subject, distance, paint
from diffusion_labs.playground.pictures import kept, known_of, plot, shown
from diffusion_labs.playground.request import Request

ALL = "all in turn"


class Answers:
    """What the buttons do. Every request is on its own: nothing is kept between them but on the visitor's page.

    Pictures are given to Gradio as files: those that it makes of pixels, it writes again when a picture comes again,
    while the browser may be reading them.

    Args:
        subject: the model.
        error: the exception that Gradio shows to the visitor.
        warn: shows a text to the visitor.
        folder: of the files, one that Gradio serves.
    """

    def __init__(
        self, subject: Subject, error: Callable[..., Exception], warn: Callable[[str], object], folder: Path
    ) -> None:
        self.subject = subject
        self.error = error
        self.warn = warn
        self.folder = folder

    def draw(self, *settings: Any) -> Iterator[tuple[Any, ...]]:
        """The picture as it grows, the way there, how long it is, and at last the code."""
        request = self._request(settings)
        yield from self._grow(request, None)

    def inpaint(self, editor: Any, *settings: Any) -> Iterator[tuple[Any, ...]]:
        """The same, of pictures of which a part is kept."""
        request = self._request(settings)
        known = self._told(lambda: known_of(editor, tuple(self.subject.sizes.image_shape)))  # type: ignore[arg-type]
        yield from self._grow(request, known)

    def take(self, *settings: Any) -> Any:
        """The first picture, for the editor."""
        request = replace(self._request(settings), count=1)
        *_, images = self._paint(request)
        image = self._file(shown(images, padding=0))
        return {"background": image, "layers": [], "composite": image}

    def compare(
        self, sampler: str, grid: str, steps: float, guidance: float, *settings: Any
    ) -> Iterator[tuple[Any, ...]]:
        """Two settings from the same noise, and how far their pictures are from each other."""
        first = self._request(settings)
        second = replace(first, sampler=sampler, grid=grid, steps=int(steps), guidance_scale=float(guidance))
        one: Any = None
        other: Any = None
        for one in self._paint(first):
            yield self._file(shown(one)), None, ""
        for other in self._paint(second):
            yield self._file(shown(one)), self._file(shown(other)), ""
        apart = f"Root mean square difference: **{distance(one, other):.4f}** (black to white is 2)"
        yield self._file(shown(one)), self._file(shown(other)), apart

    def errors(self, *settings: Any) -> Iterator[Any]:
        """The plot of the errors of the sampler that is chosen, and of DDIM, as it is measured."""
        request = self._request(settings)
        found: dict[str, list[tuple[int, float]]] = {}
        for name in dict.fromkeys((request.sampler, "ddim")):
            found[name] = []
            for point in self._each(lambda name=name: errors(self.subject, replace(request, sampler=name))):  # type: ignore[misc]
                found[name].append(point)
                yield self._file(plot(found))

    def step(self, way: Sequence[Any] | None, index: float) -> Any:
        """A picture of the way."""
        return way[min(int(index), len(way) - 1)] if way else None

    def _grow(self, request: Request, known: Any) -> Iterator[tuple[Any, ...]]:
        for finding in request.doubts(self.subject.model, self.subject.sizes):
            self.warn(f"{finding.message}. {finding.remedy}")
        way: list[str] = []
        for images in self._paint(request, known):
            way.append(self._file(shown(images)))
            yield way[-1], way, ""
        known_file = None if known is None else self._file(known.pixels().numpy())
        yield way[-1], way, python_of(self.subject.source, request, known_file)

    def _file(self, picture: Any) -> str:
        return kept(picture, self.folder)

    def _paint(self, request: Request, known: Any = None) -> Iterator[Any]:
        return self._each(lambda: paint(self.subject, request, known))

    def _each(self, make: Callable[[], Iterator[Any]]) -> Iterator[Any]:
        try:
            yield from make()
        except ValueError as error:
            raise self.error(str(error), print_exception=False) from error

    def _told(self, make: Callable[[], Any]) -> Any:
        return next(self._each(lambda: iter([make()])))

    def _request(self, settings: Sequence[Any]) -> Request:
        def read() -> Request:
            what, sampler, grid, steps, guidance, seed, count = settings
            if seed is None:
                raise ValueError("there is no seed; give a whole number")
            captions = "caption" in self.subject.sizes.conditions
            request = Request(
                class_name=None if captions or what in (None, "", ALL) else str(what),
                prompt=str(what or "") if captions else None,
                sampler=str(sampler),
                grid=str(grid),
                steps=int(steps),
                guidance_scale=float(guidance),
                seed=int(seed),
                count=int(count),
            )
            request.check(self.subject.sizes, self.subject.most_work)
            return request

        request: Request = self._told(read)
        return request

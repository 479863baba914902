"""What the buttons of the page do."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from torch import Tensor

from diffusion_labs.playground.code import KNOWN, python_of
from diffusion_labs.playground.convergence import errors
from diffusion_labs.playground.painting import Stopped, Subject, distance, paint
from diffusion_labs.playground.pictures import kept, known_of, plot, shown
from diffusion_labs.playground.request import Request
from diffusion_labs.playground.visitors import Job

ALL = "all in turn"


class Answers:
    """What the buttons do. Every request is on its own: nothing is kept between them but on the visitor's page.

    Pictures are given to Gradio as files, in the folder of the job: those that it makes of pixels, it writes again
    when a picture comes again, while the browser may be reading them. Below each picture is a note: how far it is,
    how it was made, and what is wrong with that.

    Args:
        subject: the model.
        error: the exception that Gradio shows to the visitor.
    """

    def __init__(self, subject: Subject, error: Callable[..., Exception]) -> None:
        self.subject = subject
        self.error = error

    def draw(self, job: Job, *settings: Any) -> Iterator[tuple[Any, ...]]:
        """The picture as it grows, its note; and at last all pictures on the way there, and the code."""
        with self._told():
            request = self._request(settings)
            way: list[str] = []
            for picture, note in self._grow(job, request, way):
                yield picture, note, [], ""
            if way:
                yield picture, note, way, self._code(job, request)

    def inpaint(self, job: Job, editor: Any, *settings: Any) -> Iterator[tuple[Any, ...]]:
        """The same, of pictures of which a part is kept; and the file of that part."""
        with self._told():
            request = self._request(settings)
            known = known_of(editor, tuple(self.subject.sizes.image_shape))  # type: ignore[arg-type]
            file = kept(known.pixels().numpy(), job.folder, KNOWN)
            way: list[str] = []
            for picture, note in self._grow(job, request, way, known):
                yield picture, note, [], "", file
            if way:
                yield picture, note, way, self._code(job, request, known=True), file

    def take(self, job: Job, *settings: Any) -> Iterator[Any]:
        """The first picture, for the editor."""
        with self._told():
            request = replace(self._request(settings), count=1)
            try:
                *_, images = paint(self.subject, request, stopped=job.stopped)
            except Stopped:
                return
            image = kept(shown(images, padding=0), job.folder)
            yield {"background": image, "layers": [], "composite": image}

    def compare(
        self, job: Job, sampler: str, grid: str, steps: float, guidance: float, *settings: Any
    ) -> Iterator[tuple[Any, ...]]:
        """Two settings from the same noise, how far their pictures are from each other, and the code of both."""
        with self._told("the first: "):
            first = self._request(settings)
        with self._told("the second: "):
            other = {"sampler": sampler, "grid": grid, "guidance_scale": float(guidance)}
            second = self._checked(replace(first, steps=whole("steps", steps), **other))  # type: ignore[arg-type]
        last: list[Tensor] = []
        found: tuple[Any, ...] = (None, "", None, "")
        for place, side, request in ((0, "the first: ", first), (2, "the second: ", second)):
            with self._told(side):
                for picture, note in self._grow(job, request, [], last=last):
                    found = (*found[:place], picture, note, *found[place + 2 :])
                    yield *found, "", ""
        if job.stopped.is_set():
            return
        apart = f"Root mean square difference: **{distance(*last):.4f}** (black to white is 2)"
        files = ((first, "first.png"), (second, "second.png"))
        yield *found, apart, "\n".join(self._code(job, request, file=file) for request, file in files)

    def errors(self, job: Job, *settings: Any) -> Iterator[Any]:
        """The plot of the errors of the sampler that is chosen, and of DDIM, as it is measured."""
        with self._told():
            request = self._request(settings)
            found: dict[str, list[tuple[int, float]]] = {}
            try:
                for name in dict.fromkeys((request.sampler, "ddim")):
                    found[name] = []
                    for point in errors(self.subject, replace(request, sampler=name), job.stopped):
                        found[name].append(point)
                        yield kept(plot(found), job.folder)
            except Stopped:
                return

    def _grow(
        self, job: Job, request: Request, way: list[str], known: Any = None, last: list[Tensor] | None = None
    ) -> Iterator[tuple[str, str]]:
        """Pictures and their notes; ``way`` gets all pictures, and ``last`` the last as it is."""
        model, sizes = self.subject.model, self.subject.sizes
        doubt = request.doubt(model, sizes)
        about = f"{request}, guidance {request.guidance_scale:g}{', no prompt' * (request.prompt == '')}"
        warning = f"\n\n**{doubt}**" if doubt else ""
        calls = request.calls(model, sizes, self.subject.most_work)
        images: Any = None
        try:
            for images in paint(self.subject, request, known, job.stopped):
                way.append(kept(shown(images), job.folder))
                yield way[-1], f"{about}: {min(len(way), calls)} of {calls} calls of the network{warning}"
        except Stopped:
            if way:
                yield way[-1], f"{about}: stopped after {len(way)} of {calls} calls of the network{warning}"
            return
        if last is not None:
            last.append(images)
        yield way[-1], f"{about}: {len(way) - 1} calls of the network{warning}"

    def _code(self, job: Job, request: Request, **options: Any) -> str:
        return "" if job.stopped.is_set() else python_of(self.subject.source, request, **options)

    @contextmanager
    def _told(self, side: str = "") -> Iterator[None]:
        try:
            yield
        except ValueError as error:
            raise self.error(f"{side}{error}", print_exception=False) from error

    def _request(self, settings: Sequence[Any]) -> Request:
        what, sampler, grid, steps, guidance, seed, count, *prior = settings
        captions = "caption" in self.subject.sizes.conditions
        return self._checked(
            Request(
                class_name=None if captions or what in (None, "", ALL) else str(what),
                prompt=str(what or "") if captions else None,
                sampler=str(sampler),
                grid=str(grid),
                steps=whole("steps", steps),
                guidance_scale=float(guidance),
                seed=whole("seed", seed),
                count=whole("pictures", count),
                prior_guidance_scale=float(prior[0]) if self.subject.has_prior else None,
            )
        )

    def _checked(self, request: Request) -> Request:
        request.check(self.subject.model, self.subject.sizes, self.subject.most_work)
        return request


def whole(name: str, value: float | None) -> int:
    """A number of the page, if it is whole.

    Raises:
        ValueError: if it is not, or not there.
    """
    if value is None or not float(value).is_integer():
        raise ValueError(f"{name} ({'nothing' if value is None else value}) must be a whole number")
    return int(value)

"""The page: what is on it, and what its buttons do."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from diffusion_labs.playground.code import python_of
from diffusion_labs.playground.convergence import MANY, errors
from diffusion_labs.playground.look import CSS, theme
from diffusion_labs.playground.painting import Subject, distance, paint
from diffusion_labs.playground.pictures import kept, known_of, plot, shown
from diffusion_labs.playground.request import Request
from diffusion_labs.recipes.components import components

ALL = "all in turn"
AT_ONCE, WAITING = 4, 32  # visitors who are served, and who wait


def build_page(subject: Subject) -> Any:
    """The page of a model, as Gradio's ``Blocks``; ``launch`` serves it.

    Raises:
        ImportError: naming the extra, without Gradio.
    """
    gr = _gradio()
    with gr.Blocks(title="diffusion_labs", analytics_enabled=False, fill_width=True) as page:
        answers = Answers(subject, gr.Error, Path(page.GRADIO_CACHE))
        gr.Markdown(f"# Playground\n{_what(subject)}", elem_id="title")
        with gr.Row(equal_height=False):
            with gr.Column(scale=1, min_width=280):
                what = _choice(gr, subject)
                sampler, grid, steps, guidance = _settings(gr, "")
                seed = gr.Number(0, label="Seed", precision=0)
                count = gr.Slider(1, 16, 4, step=1, label="Pictures")
            with gr.Column(scale=2, min_width=420):
                settings = [what, sampler, grid, steps, guidance, seed, count]
                with gr.Tab("Draw"):
                    _draw_tab(gr, answers, settings)
                if subject.inpaints:
                    with gr.Tab("Inpaint"):
                        _inpaint_tab(gr, answers, settings)
                with gr.Tab("Compare"):
                    _compare_tab(gr, answers, settings)
                with gr.Tab("Error against steps"):
                    _error_tab(gr, answers, settings)
    page.queue(max_size=WAITING, default_concurrency_limit=AT_ONCE)
    return page


def launch(page: Any, *, host: str = "127.0.0.1", port: int | None = None, wait: bool = True) -> str:
    """Serve a page, and return its address.

    Args:
        page: see ``build_page``.
        host: the address that is listened at; 0.0.0.0 for other machines, too.
        port: a free one from 7860 on if ``None``.
        wait: until the process is interrupted.
    """
    _, address, _ = page.launch(
        server_name=host,
        server_port=port,
        share=False,
        quiet=True,
        ssr_mode=False,
        footer_links=[],
        theme=theme(_gradio()),
        css=CSS,
        max_file_size="10mb",
        prevent_thread_lock=True,
    )
    if wait:
        print(f"The playground is at {address} until you press Ctrl-C", flush=True)
        page.block_thread()
    return str(address)


class Answers:
    """What the buttons do. Every request is on its own: nothing is kept between them but on the visitor's page.

    Pictures are given to Gradio as files: those that it makes of pixels, it writes again when a picture comes again,
    while the browser may be reading them.

    Args:
        subject: the model.
        error: the exception that Gradio shows to the visitor.
        folder: of the files, one that Gradio serves.
    """

    def __init__(self, subject: Subject, error: Callable[..., Exception], folder: Path) -> None:
        self.subject = subject
        self.error = error
        self.folder = folder

    def draw(self, *settings: Any) -> Iterator[tuple[Any, ...]]:
        """The picture as it grows, the way there, how long it is, and at last the code."""
        request = self._request(settings)
        yield from self._grow(request, None)

    def inpaint(self, editor: Any, *settings: Any) -> Iterator[tuple[Any, ...]]:
        """The same, of a picture of which a part is kept."""
        request = self._request(settings)
        known = self._told(lambda: known_of(editor, tuple(self.subject.sizes.image_shape)))  # type: ignore[arg-type]
        for picture, way, _ in self._grow(request, known):
            yield picture, way

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
        way: list[str] = []
        for images in self._paint(request, known):
            way.append(self._file(shown(images)))
            yield way[-1], way, ""
        yield way[-1], way, python_of(self.subject.source, request)

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


def _what(subject: Subject) -> str:
    channels, height, width = subject.sizes.image_shape
    colours = "grey" if channels == 1 else "colour"
    return f"`{subject.source}` draws {colours} pictures of {width} x {height} pixels."


def _choice(gr: Any, subject: Subject) -> Any:
    if "caption" in subject.sizes.conditions:
        return gr.Textbox("", label="Prompt", placeholder="What to draw", max_lines=3)
    names = list(subject.sizes.class_names)
    return gr.Dropdown([ALL, *names], value=ALL, label="Class", visible=bool(names))


def _settings(gr: Any, suffix: str, sampler: str = "ddim", steps: int = 25) -> tuple[Any, Any, Any, Any]:
    return (
        gr.Dropdown(list(components("samplers")), value=sampler, label=f"Sampler{suffix}"),
        gr.Dropdown(list(components("grids")), value="trailing", label=f"Grid of times{suffix}"),
        gr.Slider(1, 250, steps, step=1, label=f"Steps{suffix}"),
        gr.Slider(0, 8, 2, step=0.1, label=f"Guidance{suffix}"),
    )


def _picture(gr: Any) -> Any:
    return gr.Image(
        show_label=False, interactive=False, format="png", elem_classes="picture", height=420, buttons=["download"]
    )


def _way(gr: Any, answers: Answers, way: Any, picture: Any) -> Any:
    slider = gr.Slider(0, 1, 0, step=1, label="The way: what the model takes the picture for, at each call")
    slider.input(answers.step, [way, slider], picture, show_progress="hidden", api_name=False)
    way.change(
        lambda way: gr.Slider(maximum=max(1, len(way) - 1), value=len(way) - 1),
        way,
        slider,
        show_progress="hidden",
        api_name=False,
    )
    return slider


def _draw_tab(gr: Any, answers: Answers, settings: list[Any]) -> None:
    way = gr.State([])
    picture = _picture(gr)
    button = gr.Button("Draw", variant="primary")
    _way(gr, answers, way, picture)
    code = gr.Code(language="python", label="The Python that makes these pictures", interactive=False)
    button.click(
        answers.draw,
        settings,
        [picture, way, code],
        api_name="draw",
        show_progress="minimal",
        show_progress_on=picture,
    )


def _inpaint_tab(gr: Any, answers: Answers, settings: list[Any]) -> None:
    gr.Markdown(
        "Take a picture that the model draws, or upload one, and paint over what is to be made anew.",
        elem_classes="note",
    )
    way = gr.State([])
    with gr.Row():
        with gr.Column(min_width=220):
            editor = gr.ImageEditor(
                show_label=False,
                sources=["upload"],
                transforms=(),
                layers=False,
                brush=gr.Brush(default_size=24, colors=["#6366f1"], color_mode="fixed"),
                canvas_size=(256, 256),
                height=420,
                elem_id="editor",
            )
            take = gr.Button("Take a picture")
        with gr.Column(min_width=220):
            picture = _picture(gr)
            button = gr.Button("Inpaint", variant="primary")
    _way(gr, answers, way, picture)
    take.click(answers.take, settings, editor, api_name=False, show_progress="minimal")
    button.click(answers.inpaint, [editor, *settings], [picture, way], api_name="inpaint", show_progress="minimal")


def _compare_tab(gr: Any, answers: Answers, settings: list[Any]) -> None:
    gr.Markdown("The settings on the left, and these, from the same noise.", elem_classes="note")
    with gr.Row():
        other = _settings(gr, " of the second", "dpm-solver-pp-2m", 10)
    with gr.Row():
        first, second = _picture(gr), _picture(gr)
    apart = gr.Markdown()
    button = gr.Button("Compare", variant="primary")
    button.click(
        answers.compare, [*other, *settings], [first, second, apart], api_name="compare", show_progress="minimal"
    )


def _error_tab(gr: Any, answers: Answers, settings: list[Any]) -> None:
    gr.Markdown(
        f"How far pictures of few steps are from those of {MANY} steps by the same sampler and noise. A stochastic "
        "sampler draws other noise with other steps, and does not come closer.",
        elem_classes="note",
    )
    picture = _picture(gr)
    button = gr.Button("Measure", variant="primary")
    button.click(answers.errors, settings, picture, api_name="errors", show_progress="minimal")


def _gradio() -> Any:
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # nothing is told to anybody
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        import gradio
    except ImportError as error:
        raise ImportError("the playground needs gradio; install it with: pip install 'diffusion-labs[play]'") from error
    return gradio

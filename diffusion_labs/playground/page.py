"""The page: what is on it."""

import inspect
import os
import signal
import sys
from collections.abc import Callable, Iterator
from threading import Event
from typing import Any

from diffusion_labs.playground.answers import ALL, Answers
from diffusion_labs.playground.convergence import MANY, STEPS
from diffusion_labs.playground.look import CSS, theme
from diffusion_labs.playground.painting import Subject
from diffusion_labs.playground.visitors import Visitors
from diffusion_labs.recipes.components import components

AT_ONCE, WAITING = 4, 32  # visitors who are served, and who wait
SETTING = 280  # pixels that a setting has at least, as the column on the left
CLEANED, OLD = 600, 3600  # seconds: how often uploads are looked through, and how long they are kept
GOOD = {  # what is named first in the lists
    "samplers": ("ddim", "dpm-solver-pp-2m", "unipc", "heun", "ddpm"),
    "grids": ("trailing", "karras", "exponential"),
}
LEFT_OUT = ("all_steps", "fitted")  # takes no number of steps; is fitted by a command of its own

# The pictures on the way are swapped in the browser, which has their names: the last position of the slider wins
LENGTH = """(way) => ({__type__: "update", maximum: Math.max(1, (way || []).length - 1),
    value: Math.max(0, (way || []).length - 1)})"""
SWAP = """(way, index, picture) => {
    if (!picture || !(way || []).length) return picture;
    const path = way[Math.max(0, Math.min(way.length - 1, Math.round(index) || 0))];
    const place = path.split("/").map(encodeURIComponent).join("/");
    return {...picture, path: path, url: picture.url.replace(/file=.*/, () => "file=" + place)};
}"""

# The editor says nothing about files that it does not take
NO_PICTURE = """() => {
    const check = (event) => {
        const files = [...(event.target.files || event.dataTransfer?.files || [])];
        const wrong = files.find((file) => !file.type.startsWith("image/"));
        if (wrong && event.target.closest("#editor")) alert(`${wrong.name} is no picture; take a PNG or a JPEG`);
    };
    for (const kind of ["change", "drop"]) document.addEventListener(kind, check, true);
}"""


def build_page(subject: Subject) -> Any:
    """The page of a model, as Gradio's ``Blocks``; ``launch`` serves it.

    Its attribute ``visitors`` is who is there, with their files.

    Raises:
        ImportError: naming the extra, without Gradio.
    """
    gr = _gradio()
    visitors = Visitors()
    _upload_to(visitors)
    gr.set_static_paths([visitors.folder])  # pictures are served from where they are, and not copied
    with gr.Blocks(
        title="diffusion_labs", analytics_enabled=False, fill_width=True, delete_cache=(CLEANED, OLD)
    ) as page:
        page.visitors = visitors
        answers = Answers(subject, gr.Error)
        gr.Markdown(f"# Playground\n{_what(subject)}", elem_id="title")
        with gr.Row(equal_height=False):
            with gr.Column(scale=1, min_width=SETTING):
                what = _choice(gr, subject)
                sampler, grid, steps, guidance = _settings(gr, "")
                prior = gr.Slider(
                    0, 8, 2, step=0.1, label="Guidance of the prior", min_width=SETTING, visible=subject.has_prior
                )
                seed = gr.Number(0, label="Seed")
                count = gr.Slider(1, 16, 4, step=1, label="Pictures")
                settings = [what, sampler, grid, steps, guidance, seed, count, *[prior] * subject.has_prior]
            with gr.Column(scale=2, min_width=420):
                tabs = Tabs(gr, visitors, answers, settings)
                with gr.Tab("Draw", elem_classes="work"):
                    tabs.draw()
                if subject.inpaints:
                    with gr.Tab("Inpaint", elem_classes="work"):
                        tabs.inpaint()
                with gr.Tab("Compare", elem_classes="work"):
                    tabs.compare()
                with gr.Tab("Error against steps", elem_classes="work"):
                    tabs.error()
        page.load(None, js=NO_PICTURE)
        page.unload(_of_session(gr, visitors.leave))
    page.queue(max_size=WAITING, default_concurrency_limit=AT_ONCE)
    return page


def launch(page: Any, *, host: str = "127.0.0.1", port: int | None = None, wait: bool = True) -> str:
    """Serve a page, and return its address.

    Args:
        page: see ``build_page``.
        host: the address that is listened at; 0.0.0.0 for other machines, too.
        port: a free one from 7860 on if ``None``.
        wait: until the process is interrupted, or terminated; then what visitors wait for is stopped, and their files
            are removed.
    """
    _upload_to(page.visitors)
    try:
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
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
            Event().wait()
    finally:
        if wait:
            page.visitors.close()  # first: a request that is worked on needs the server to end
            page.close(verbose=False)
    return str(address)


class Tabs:
    """What is on the right.

    Args:
        gr: Gradio.
        visitors: who is there.
        answers: what buttons do.
        settings: what is on the left.
    """

    def __init__(self, gr: Any, visitors: Visitors, answers: Answers, settings: list[Any]) -> None:
        self.gr = gr
        self.visitors = visitors
        self.answers = answers
        self.settings = settings

    def draw(self) -> None:
        """Pictures as they grow."""
        buttons = self._buttons("Draw")
        picture, note = self._picture("Press Draw, and watch the pictures grow here.")
        film, code = self._film(picture), self._code()
        self._works("draw", self.answers.draw, buttons, self.settings, [picture, note, film, code], enter=True)

    def inpaint(self) -> None:
        """A part of a picture made anew."""
        gr = self.gr
        gr.Markdown(
            "Draw a picture, or upload one, and paint over what is to be made anew. Of a picture that is not of the "
            "model's shape, the middle is taken.",
            elem_classes="note",
        )
        with gr.Row():
            with gr.Column(min_width=220):
                take = self._buttons("Draw one to edit", variant="secondary")
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
            with gr.Column(min_width=220):
                buttons = self._buttons("Inpaint")
                picture, note = self._picture("Paint over a part, press Inpaint, and watch it being made anew here.")
        film, code = self._film(picture), self._code()
        with gr.Column(elem_classes="later"):
            known = gr.DownloadButton("Download known.png, which the Python reads", size="sm")
        self._works("take", self.answers.take, take, self.settings, [editor], api=False)
        outputs = [picture, note, film, code, known]
        self._works("inpaint", self.answers.inpaint, buttons, [editor, *self.settings], outputs)

    def compare(self) -> None:
        """Two settings."""
        gr = self.gr
        gr.Markdown("The settings on the left, and these, from the same noise.", elem_classes="note")
        with gr.Row():
            other = _settings(gr, " of the second", "dpm-solver-pp-2m", 10)
        buttons = self._buttons("Compare")
        with gr.Row():
            with gr.Column(min_width=220):
                first = self._picture("Press Compare: the first are here,")
            with gr.Column(min_width=220):
                second = self._picture("and the second here.")
        apart = gr.Markdown(elem_classes="about")
        inputs = [*other, *self.settings]
        self._works("compare", self.answers.compare, buttons, inputs, [*first, *second, apart, self._code()])

    def error(self) -> None:
        """A plot."""
        few = ", ".join(str(steps) for steps in STEPS)
        self.gr.Markdown(
            f"How far pictures of {few} steps are from those of {MANY} steps by the same sampler and noise; the "
            "number of steps on the left is not used here. A stochastic sampler draws other noise with other steps, "
            "and does not come closer.",
            elem_classes="note",
        )
        buttons = self._buttons("Measure")
        picture, _ = self._picture("Press Measure, and watch the lines grow here.", "plot")
        self._works("errors", self.answers.errors, buttons, self.settings, [picture])

    def _picture(self, invitation: str, kind: str = "picture") -> tuple[Any, Any]:
        """A picture, and what is said about it."""
        picture = self.gr.Image(
            show_label=False, interactive=False, format="png", elem_classes=kind, height=420, buttons=["download"]
        )
        return picture, self.gr.Markdown(invitation, elem_classes="about")

    def _film(self, picture: Any) -> Any:
        """All pictures on the way, through which a slider goes."""
        film = self.gr.JSON([], visible="hidden")
        with self.gr.Column(elem_classes="later"):
            slider = self.gr.Slider(0, 1, 0, step=1, label="Steps on the way", elem_classes="way")
        film.change(None, film, slider, js=LENGTH, api_name=False)
        slider.input(None, [film, slider, picture], picture, js=SWAP, api_name=False)
        return film

    def _code(self) -> Any:
        with self.gr.Column(elem_classes="later"):
            return self.gr.Code(
                language="python", label="The Python that makes these pictures", interactive=False, wrap_lines=True
            )

    def _buttons(self, name: str, variant: str = "primary") -> tuple[Any, Any]:
        """One that starts, and one that stops."""
        with self.gr.Row():
            start = self.gr.Button(name, variant=variant, scale=4, min_width=120)
            stop = self.gr.Button("Stop", scale=1, min_width=80, interactive=False, elem_classes="stop")
        return start, stop

    def _works(
        self,
        name: str,
        answer: Callable[..., Iterator[Any]],
        buttons: tuple[Any, Any],
        inputs: list[Any],
        outputs: list[Any],
        api: bool = True,
        enter: bool = False,
    ) -> None:
        """Have a button start a job, and another stop it; Enter in what is to be drawn may start it, too."""
        gr = self.gr

        def work(request: gr.Request, *given: Any) -> Iterator[Any]:  # type: ignore[name-defined]
            with self.visitors.visitor(request.session_hash).working(name) as job:
                yield from answer(job, *given)

        def working(now: bool) -> Callable[[], tuple[Any, Any]]:
            return lambda: (gr.Button(interactive=not now), gr.Button(interactive=now))

        start, stop = buttons
        silent: dict[str, Any] = {"show_progress": "hidden"}  # Gradio's overlays hide the pictures
        what = self.settings[0]
        starts = [start.click, what.submit] if enter and hasattr(what, "submit") else [start.click]
        begun = gr.on(starts, working(True), None, [*buttons], queue=False, api_name=False, **silent)
        done = begun.then(
            inspect.unwrap(work),  # Gradio must see that it yields, which shape checks hide
            inputs,
            outputs[0] if len(outputs) == 1 else outputs,
            api_name=name if api else False,
            **silent,
        )
        for after in (done.then, done.failure):
            after(working(False), None, [*buttons], queue=False, api_name=False, **silent)
        stopping = _of_session(gr, lambda session: self.visitors.visitor(session).job.stop())
        stop.click(stopping, None, None, queue=False, api_name=False, **silent)


def _of_session(gr: Any, act: Callable[[str], None]) -> Callable[..., None]:
    """A function of Gradio's that is called with the session."""

    def call(request: gr.Request) -> None:
        act(request.session_hash)

    return call


def _upload_to(visitors: Visitors) -> None:
    """Have Gradio keep uploads in the folder of the visitors."""
    os.environ["GRADIO_TEMP_DIR"] = str(visitors.folder)


def _what(subject: Subject) -> str:
    channels, height, width = subject.sizes.image_shape
    colours = "grey" if channels == 1 else "colour"
    return f"`{subject.source}` draws {colours} pictures of {width} x {height} pixels."


def _choice(gr: Any, subject: Subject) -> Any:
    if "caption" in subject.sizes.conditions:
        return gr.Textbox("", label="Prompt", placeholder="What to draw; anything if empty", max_lines=3)
    names = list(subject.sizes.class_names)
    return gr.Dropdown([ALL, *names], value=ALL, label="Class", visible=bool(names))


def _settings(gr: Any, suffix: str, sampler: str = "ddim", steps: int = 25) -> tuple[Any, Any, Any, Any]:
    return (
        gr.Dropdown(_names("samplers"), value=sampler, label=f"Sampler{suffix}", min_width=SETTING),
        gr.Dropdown(_names("grids"), value="trailing", label=f"Grid of times{suffix}", min_width=SETTING),
        gr.Slider(1, 250, steps, step=1, label=f"Steps{suffix}", min_width=SETTING),
        gr.Slider(0, 8, 2, step=0.1, label=f"Guidance{suffix}", min_width=SETTING),
    )


def _names(kind: str) -> list[str]:
    """Of all components, the good ones first."""
    return [name for name in dict.fromkeys([*GOOD[kind], *components(kind)]) if name not in LEFT_OUT]


def _gradio() -> Any:
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # nothing is told to anybody
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        import gradio
    except ImportError as error:
        raise ImportError("the playground needs gradio; install it with: pip install 'diffusion-labs[play]'") from error
    return gradio

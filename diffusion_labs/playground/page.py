"""The page: what is on it."""

import os
from pathlib import Path
from typing import Any

from diffusion_labs.playground.answers import ALL, Answers
from diffusion_labs.playground.convergence import MANY
from diffusion_labs.playground.look import CSS, theme
from diffusion_labs.playground.painting import Subject
from diffusion_labs.recipes.components import components

AT_ONCE, WAITING = 4, 32  # visitors who are served, and who wait
SETTING = 280  # pixels that a setting has at least, as the column on the left


def build_page(subject: Subject) -> Any:
    """The page of a model, as Gradio's ``Blocks``; ``launch`` serves it.

    Raises:
        ImportError: naming the extra, without Gradio.
    """
    gr = _gradio()
    with gr.Blocks(title="diffusion_labs", analytics_enabled=False, fill_width=True) as page:
        answers = Answers(subject, gr.Error, gr.Warning, Path(page.GRADIO_CACHE))
        gr.Markdown(f"# Playground\n{_what(subject)}", elem_id="title")
        with gr.Row(equal_height=False):
            with gr.Column(scale=1, min_width=SETTING):
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
        gr.Dropdown(list(components("samplers")), value=sampler, label=f"Sampler{suffix}", min_width=SETTING),
        gr.Dropdown(list(components("grids")), value="trailing", label=f"Grid of times{suffix}", min_width=SETTING),
        gr.Slider(1, 250, steps, step=1, label=f"Steps{suffix}", min_width=SETTING),
        gr.Slider(0, 8, 2, step=0.1, label=f"Guidance{suffix}", min_width=SETTING),
    )


def _picture(gr: Any, kind: str = "picture") -> Any:
    return gr.Image(
        show_label=False, interactive=False, format="png", elem_classes=kind, height=420, buttons=["download"]
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


def _code(gr: Any) -> Any:
    return gr.Code(language="python", label="The Python that makes these pictures", interactive=False)


def _draw_tab(gr: Any, answers: Answers, settings: list[Any]) -> None:
    way = gr.State([])
    picture = _picture(gr)
    button = gr.Button("Draw", variant="primary")
    _way(gr, answers, way, picture)
    code = _code(gr)
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
    code = _code(gr)
    take.click(answers.take, settings, editor, api_name=False, show_progress="minimal")
    button.click(
        answers.inpaint,
        [editor, *settings],
        [picture, way, code],
        api_name="inpaint",
        show_progress="minimal",
        show_progress_on=picture,
    )


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
    picture = _picture(gr, "plot")
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

"""The README's Python runs as it stands."""

import re
from pathlib import Path

import pytest
from PIL import Image

README = Path(__file__).parents[2] / "README.md"


@pytest.mark.parametrize(("updates", "fall"), [pytest.param(300, 0.5, marks=pytest.mark.slow), (60, 0.75)])
def test_the_first_python_of_the_readme_runs(
    updates: int, fall: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    """As it stands in the slow tests; with fewer updates and calls of the network in the others."""
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    for full, less in (("range(300)", f"range({updates})"), ("eval_steps=25", f"eval_steps={updates // 12}")):
        assert code.count(full) == 1
        code = code.replace(full, less)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, str(README), "exec"), {})
    losses = [float(line.split()[1]) for line in capsys.readouterr().out.splitlines()]
    assert losses[-1] < fall * losses[0]
    assert Image.open("digits.png").size == (8 * (8 * 10 + 2), 8 * (10 * 10 + 2))


SHORT = {"range(300)": "range(2)", "eval_steps=25": "eval_steps=2"}
INPAINTING = {
    "in_channels=1": "in_channels=3, out_channels=1",
    "dl.NormalizeImages(),": "dl.NormalizeImages(), dl.RandomInpaintingMask(),",
    '{"class": data["class"]}': '{key: data[key] for key in ("class", "mask", "masked_image")}',
}
INSIDE = {"dl.CFGuidance(network,": "dl.CFGuidance(dl.InPainting(network, channels=1),"}
OUTSIDE = {"guidance_scale=2.0)": "guidance_scale=2.0)\nmodel = dl.InPainting(model, channels=1)"}


@pytest.mark.parametrize(
    "exchanged",
    [
        {"dl.VPredictor(": "dl.NoisePredictor("},
        {"dl.DDIMSampler(": "dl.DDPMSampler("},
        {"dl.cosine_beta_schedule(1000)": "dl.scaled_linear_beta_schedule()"},
        {**INPAINTING, **INSIDE},
        {**INPAINTING, **OUTSIDE},
    ],
    ids=["predictor", "sampler", "schedule", "adapter inside", "adapter outside"],
)
def test_what_the_readme_says_of_exchanging_lines(
    exchanged: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    for before, after in {**SHORT, **exchanged}.items():
        assert code.count(before) == 1
        code = code.replace(before, after)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, str(README), "exec"), {})
    assert Image.open("digits.png").size == (8 * (8 * 10 + 2), 8 * (10 * 10 + 2))


def test_every_link_of_the_documents_leads_somewhere() -> None:
    for document in (README, README.parent / "CONTRIBUTING.md", *(README.parent / "docs").rglob("*.md")):
        for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", document.read_text()):
            if "://" not in target:
                assert (document.parent / target).exists(), f"{document}: {target}"

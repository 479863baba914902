"""Exported samplers: run by PyTorch alone, they give the sampler's images."""

import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import diffusion_labs as dl
from diffusion_labs.interop.exported_sampler import sampling_program
from diffusion_labs.kernels.build import library
from tests.catalogue import (
    ADAPTERS,
    SAMPLERS,
    SCHEDULES,
    TinyClassifier,
    TinyNetwork,
    latent_diffusion,
    network,
    predictor,
)
from tests.samplers.test_linear_steps import NOT_LINEAR, Noises

# Python's own library and the installed packages: neither the working directory nor packages in place
ALONE = f"""
import importlib.util, sys
sys.path.append({sysconfig.get_path("purelib")!r})
assert importlib.util.find_spec("diffusion_labs") is None
import torch

folder = sys.argv[1]
for name, inputs in torch.load(f"{{folder}}/inputs").items():
    if name.startswith("compiled"):
        program = torch._inductor.aoti_load_package(f"{{folder}}/{{name}}.pt2")
    else:
        program = torch.export.load(f"{{folder}}/{{name}}.pt2").module()
    outputs = []
    for given in inputs:
        torch.manual_seed(0)
        with torch.no_grad():
            outputs.append(program(*given))
    torch.save(outputs, f"{{folder}}/{{name}}.outputs")
assert not any(module.startswith("diffusion_labs") for module in sys.modules)
"""

Inputs = tuple[Tensor, Mapping[str, Tensor]] | tuple[Tensor]


def build(name: str, schedule: str = "scaled_linear", model: nn.Module | None = None) -> dl.Sampler:
    made = SCHEDULES[schedule]()
    guided = dl.CFGuidance(TinyNetwork() if model is None else model, {"class": 0.1}, guidance_scale=2.0)
    predictor = dl.VPredictor(made, clamp=dl.StaticClamp())
    return SAMPLERS[name](guided.double(), made, predictor, eval_steps=5, progress_bar=False).eval()


def inputs(size: int) -> Inputs:
    x = torch.randn(size, 1, 8, 8, generator=torch.Generator().manual_seed(size), dtype=torch.float64)
    return x, {"class": torch.arange(size) % 3}


def run_alone(folder: Path, given: Mapping[str, list[Inputs]]) -> dict[str, list[Tensor]]:
    torch.save(dict(given), folder / "inputs")
    command = [sys.executable, "-I", "-S", "-c", ALONE, str(folder)]
    subprocess.run(command, check=True, cwd=folder)
    return {name: torch.load(folder / f"{name}.outputs") for name in given}


def check_alone(folder: Path, samplers: Mapping[str, nn.Module], given: list[Inputs]) -> None:
    """A seed gives what it gives the sampler."""
    actual = run_alone(folder, dict.fromkeys(samplers, given))
    for name, sampler in samplers.items():
        for images, (x, *conditions) in zip(actual[name], given, strict=True):
            torch.manual_seed(0)
            expected = sampler(x, conditional_inputs=conditions[0] if conditions else None)
            torch.testing.assert_close(images, expected, rtol=1e-7, atol=1e-7)


def test_without_this_library_and_for_other_batches(tmp_path: Path) -> None:
    samplers = {name: build(name) for name in ("ddim", "dpmpp_2m", "heun")}
    for name, sampler in samplers.items():
        dl.export_sampler(sampler, tmp_path / f"{name}.pt2", *inputs(1))
    check_alone(tmp_path, samplers, [inputs(size) for size in (4, 1, 7)])


@pytest.mark.slow
def test_without_conditions(tmp_path: Path) -> None:
    sampler = build("ddpm")
    dl.export_sampler(sampler, tmp_path / "ddpm.pt2", inputs(2)[0])
    check_alone(tmp_path, {"ddpm": sampler}, [inputs(4)[:1]])
    with pytest.raises(ValueError, match="same number and type of args"):
        torch.export.load(tmp_path / "ddpm.pt2").module()(*inputs(4))


@pytest.mark.slow
def test_the_loop_is_in_the_file_once() -> None:
    """However many steps; and no place in the exporter's code is."""
    few, many = build("dpmpp_2m"), build("dpmpp_2m")
    many.eval_steps = 50
    programs = [sampling_program(sampler, *inputs(2)) for sampler in (few, many)]
    counts = [[len(part.graph.nodes) for part in parts(program)] for program in programs]
    assert counts[0] == counts[1]
    assert not any("stack_trace" in node.meta for part in parts(programs[0]) for node in part.graph.nodes)


def parts(program: torch.export.ExportedProgram) -> list[torch.fx.GraphModule]:
    return [part for part in program.graph_module.modules() if isinstance(part, torch.fx.GraphModule)]


@pytest.mark.slow
def test_a_latent_diffusion_with_encoded_conditions() -> None:
    system = latent_diffusion().eval()
    x = system.sample_prior(2, (8, 8), dl.seeded([1, 2]))
    conditions = system.conditioner({"caption": ["a", "bc"], "class": torch.tensor([0, 1])}, x)
    program = sampling_program(system, x, conditions).module()
    torch.testing.assert_close(program(x, conditions), system(x, conditional_inputs=conditions), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_kernels_of_this_library_stay_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFUSION_LABS_KERNELS", "1")
    if library() is None:
        pytest.skip("needs Linux, a processor with AVX2 and g++")
    sampler = build("ddim", model=network(channel_mult=(1,), attention_levels=())).float()
    x, conditions = inputs(2)
    program = sampling_program(sampler, x.float(), conditions)
    targets = [str(node.target) for part in parts(program) for node in part.graph.nodes]
    assert any("convolution" in target or "conv2d" in target for target in targets)
    assert not any("diffusion_labs" in target for target in targets)


def test_mistakes(tmp_path: Path) -> None:
    x, conditions = inputs(2)
    file = tmp_path / "sampler.pt2"
    with pytest.raises(ValueError, match="DDIMSampler is in train mode"):
        dl.export_sampler(build("ddim").train(), file, x, conditions)
    with pytest.raises(ValueError, match=r"conditional_inputs has \['label'\]"):
        dl.export_sampler(build("ddim"), file, x, {"label": conditions["class"]})
    with pytest.raises(ValueError, match="one entry per sample"):
        dl.export_sampler(build("ddim"), file, x, {"class": conditions["class"][:1]})
    with pytest.raises(ValueError, match="must be floating point"):
        dl.export_sampler(build("ddim"), file, x.long(), conditions)
    with pytest.raises(ValueError, match=r"must end in \.pt2"):
        dl.export_sampler(build("ddim"), tmp_path / "sampler.safetensors", x, conditions)
    with pytest.raises(ValueError, match="AdaptiveSampler weighs its estimates"):
        dl.export_sampler(build("adaptive"), file, x, conditions)
    with pytest.raises(ValueError, match="without the adapter that does, such as DeepCache"):
        dl.export_sampler(build("ddim", model=dl.DeepCache(network())), file, x, conditions)
    with pytest.raises(ValueError, match=r"conditional_inputs\['caption'\] is a list, but a program takes tensors"):
        dl.export_sampler(latent_diffusion().eval(), file, torch.zeros(2, 3, 4, 4), {"caption": ["a", "b"]})
    differentiating = dl.ClassifierGuidance(TinyNetwork(), TinyClassifier(), predictor())
    with pytest.raises(ValueError, match="cannot trace the DDIMSampler; it cannot where a model differentiates"):
        dl.export_sampler(build("ddim", model=differentiating), file, x, conditions)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("schedule", ["continuous_cosine", "zero_terminal_snr"])
@pytest.mark.parametrize("name", [name for name in SAMPLERS if name not in NOT_LINEAR])
def test_every_solver(name: str, schedule: str) -> None:
    """With the noise that the program draws: what is drawn before the first call, and as often after each call."""
    sampler, given = build(name, schedule), inputs(3)
    program = sampling_program(sampler, *inputs(2)).module()
    noises = Noises(sampler)
    sampler(given[0], conditional_inputs=given[1], generator=noises)
    first, *others = [len(drawn) for drawn in noises.drawn]

    torch.manual_seed(0)
    actual = program(*given)
    torch.manual_seed(0)
    bank = [[torch.randn_like(given[0]) for _ in range(first)]]
    bank += [[torch.randn_like(given[0]) for _ in range(max(others))] for _ in others]
    noises.drawn = [[]]
    replayed = sampler(
        given[0], conditional_inputs=given[1], generator=lambda x, t, s: bank[len(noises.drawn) - 1].pop(0)
    )
    torch.testing.assert_close(actual, replayed, rtol=1e-7, atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in ADAPTERS if name not in ("classifier_guidance", "linear_posterior")])
def test_every_adapter(name: str) -> None:
    case, process = ADAPTERS[name], predictor()
    model = case.wrap(TinyNetwork(*case.grow(1, 1)))
    sampler = dl.DDIMSampler(model, process.schedule, process, eval_steps=4, progress_bar=False).eval()
    few, more = inputs(2)[0].float(), inputs(3)[0].float()
    program = sampling_program(sampler, few, case.inputs(few)).module()
    conditions = case.inputs(more)
    torch.testing.assert_close(program(more, conditions), sampler(more, conditional_inputs=conditions))


@pytest.mark.slow
def test_compiled_ahead_of_time(tmp_path: Path) -> None:
    """A multi-step solver, and one that draws; they run without this library, too."""
    samplers = {f"compiled_{name}": build(name) for name in ("dpmpp_2m", "ddpm")}
    for name, sampler in samplers.items():
        dl.compile_sampler(sampler, tmp_path / f"{name}.pt2", *inputs(1))
    check_alone(tmp_path, samplers, [inputs(size) for size in (4, 1, 7)])


@pytest.mark.slow
def test_without_a_compiler_it_says_so(tmp_path: Path) -> None:
    without = {"cpp.cxx": (None, "no-such-compiler"), "force_disable_caches": True}
    with (
        torch._inductor.config.patch(without),
        pytest.raises(ValueError, match=r"export_sampler needs no compiler(.|\n)*No working C\+\+ compiler"),
    ):
        dl.compile_sampler(build("ddim"), tmp_path / "compiled.pt2", *inputs(2))
    assert not list(tmp_path.iterdir())

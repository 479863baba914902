"""The libraries that are compared, by name; ours is the first."""

from benchmarks.speed.denoising_diffusion import DenoisingDiffusion
from benchmarks.speed.diffusers import Diffusers
from benchmarks.speed.ours import Ours
from benchmarks.speed.sizes import Library
from benchmarks.speed.torchmultimodal import TorchMultimodal

LIBRARIES: dict[str, Library] = {
    library.name: library for library in (Ours(), TorchMultimodal(), Diffusers(), DenoisingDiffusion())
}
LEFT_OUT = "guided-diffusion is not on PyPI, so it is not here."

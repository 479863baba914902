"""The own format: a folder with a description in plain data and weights in safetensors, here or on the hub."""

from diffusion_labs.pretrained.folder import save_pretrained
from diffusion_labs.pretrained.hub import from_pretrained, push_to_hub

__all__ = ["from_pretrained", "push_to_hub", "save_pretrained"]

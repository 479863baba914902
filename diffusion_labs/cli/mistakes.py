"""What goes wrong where the user asked for what cannot be: told in one line."""

from safetensors import SafetensorError

from diffusion_labs.training import CheckpointError

MISTAKES = (ValueError, OSError, ImportError, SafetensorError, CheckpointError)

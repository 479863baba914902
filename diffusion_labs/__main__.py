"""``python -m diffusion_labs`` is the command line."""

from diffusion_labs.cli import main

main()

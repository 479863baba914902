"""Formats of diffusers are read without diffusers."""

import subprocess
import sys
from pathlib import Path

import diffusion_labs as dl
from tests.catalogue import tiny_vq

CODE = """
import sys
from pathlib import Path
import diffusion_labs as dl

folder = Path(sys.argv[1])
dl.from_diffusers_config({"_class_name": "DDIMScheduler"})
dl.load_diffusers_unet(folder / "unet")
dl.load_diffusers_autoencoder(folder / "vqvae")
assert "diffusers" not in sys.modules
"""


def test_diffusers_is_not_imported(tmp_path: Path) -> None:
    dl.save_diffusers_unet(dl.adm_unet(model_channels=32, channel_mult=(1,)), tmp_path / "unet")
    dl.save_diffusers_autoencoder(tiny_vq(), tmp_path / "vqvae")
    subprocess.run([sys.executable, "-c", CODE, str(tmp_path)], check=True)

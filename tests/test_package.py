"""The package's own names."""

import pkgutil
import subprocess
import sys

import diffusion_labs as dl

FOLDERS = {module.name for module in pkgutil.iter_modules(dl.__path__) if module.ispkg} - {"cli"}


def test_every_folder_is_an_attribute_and_nothing_is_imported_before_it_is_used() -> None:
    code = f"""
import sys
import diffusion_labs as dl
assert not any(name in sys.modules for name in ("torch", *(f"diffusion_labs.{{folder}}" for folder in {FOLDERS})))
for folder in {sorted(FOLDERS)}:
    assert getattr(dl, folder) is sys.modules[f"diffusion_labs.{{folder}}"]
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_folders_are_found_by_completion_and_not_imported_by_a_star() -> None:
    assert set(dir(dl)) >= FOLDERS
    assert not FOLDERS & set(dl.__all__)
    assert {"DDIMSampler", "lint", "adm_unet"} <= set(dl.__all__)

"""The documentation site: `make docs` writes it to docs/_build. No part of it needs a network, nor does the site."""

import sys
from importlib.metadata import version as version_of
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "extensions"))

project = "diffusion_labs"
author = "diffusion_labs contributors"
version = release = version_of("diffusion-labs")

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "myst_nb",
    "mathml",
    "public_names",
    "source_pages",
]
exclude_patterns = ["_build", "extensions"]

# Pages: Markdown as on GitHub; notebooks as they were stored, never executed here
myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
myst_heading_anchors = 3
nb_execution_mode = "off"

# The reference: what the docstrings say
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 100
add_module_names = False
nitpicky = True

html_theme = "furo"
html_title = "diffusion_labs"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_copyright = False
pygments_style = "friendly"
pygments_dark_style = "native"

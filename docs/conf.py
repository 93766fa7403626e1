"""How the documentation is built: `python -m sphinx -W docs docs/_build/html`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import generate

import initdiag

project = "initdiag"
author = "The initdiag developers"
copyright = author
version = release = initdiag.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.mathjax", "numpydoc"]
myst_enable_extensions = ["dollarmath", "amsmath", "deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
nb_execution_mode = "force"  # the notebooks are kept without what they show
nb_execution_timeout = 300
nb_execution_raise_on_error = True

default_role = "py:obj"  # a name in single backticks links where the reference has it
autodoc_typehints = "none"  # the docstrings say the types, in words
autodoc_member_order = "bysource"
numpydoc_show_class_members = False  # autodoc lists them

html_theme = "furo"
html_title = f"initdiag {release}"


def setup(app: object) -> None:
    """Write the pages that are made from the package, before anything is read."""
    generate.write(Path(__file__).parent)

"""Sphinx settings. Nothing is fetched: formulas become MathML, which browsers draw on their own."""

import doctest
import re
import sys
from importlib.metadata import version as installed_version
from pathlib import Path

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.util.logging import getLogger
from sphinx.writers.html5 import HTML5Translator

sys.path.insert(0, str(Path(__file__).parent))

import gallery
import speed_tables

logger = getLogger(__name__)

project = "multilevel-loss"
copyright = "The multilevel-loss developers"
release = version = installed_version("multilevel-loss")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.doctest", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "_generated"]
default_role = "code"

autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_preserve_defaults = True
autodoc_typehints = "none"  # the Args sections give dtype, shape and range, which the annotations cannot
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_custom_sections = ["Source"]
doctest_default_flags = doctest.ELLIPSIS  # the text of an error is checked too
# The examples of docstrings see what their own modules hold.
doctest_global_setup = """
import torch
from multilevel_loss import *
from multilevel_loss.distance import *
from multilevel_loss.functional import *
_ = torch.manual_seed(0)
"""

html_theme = "furo"
html_title = f"multilevel-loss {release}"
html_math_renderer = "mathml"


def _mathml(node: nodes.Element, *, as_block: bool) -> str:
    try:
        # The one that docutils lacks.
        return tex2mathml(node.astext().replace(r"\dots", r"\ldots"), as_block=as_block)
    except MathError as error:
        logger.warning("%s in %s", error, node.astext(), location=node)
        return ""


def _inline_math(translator: HTML5Translator, node: nodes.Element) -> None:
    translator.body.append(_mathml(node, as_block=False))
    raise nodes.SkipNode


def _block_math(translator: HTML5Translator, node: nodes.Element) -> None:
    # The padding keeps the theme, which lets wide formulas scroll, from adding a scroll bar to tall ones.
    translator.body.append(f'<div style="padding: 0.5em 0">{_mathml(node, as_block=True)}</div>')
    raise nodes.SkipNode


def _escape_symbols(app: Sphinx, what: str, name: str, item: object, options: object, lines: list[str]) -> None:
    # Outside formulas, "(B, C, *spatial)" would open an emphasis and "|p − v|" ask for a substitution.
    formula = False
    for number, line in enumerate(lines):
        if line.strip():
            formula = ".. math::" in line or (formula and line.startswith(" "))
        if not formula:
            lines[number] = re.sub(r"(?<![^\s(])(\*(?=spatial)|\|(?=\w))", r"\\\1", line)


def _generate(app: Sphinx) -> None:
    if not gallery.is_current():
        gallery.main()
    speed_tables.main()


def setup(app: Sphinx) -> None:
    """Register the MathML renderer, the reading of shapes, and what is drawn and tabulated at build time."""
    app.connect("builder-inited", _generate)
    app.connect("autodoc-process-docstring", _escape_symbols)
    app.add_html_math_renderer("mathml", (_inline_math, None), (_block_math, None))

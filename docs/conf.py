"""The documentation site: `make docs`. Sphinx reads the pages of this folder, which are also readable on a Git host."""

from __future__ import annotations

import sys
from pathlib import Path

from pygments.lexers.special import TextLexer
from sphinx.application import Sphinx
from torch import nn

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "_ext"), str(HERE.parent / "src")]

import continual  # noqa: E402 - from this checkout

sys.modules["continual.serve"] = continual.serve  # users write co.serve, which is an attribute and not a module

project = "continual"
author = "The continual authors"
copyright = author
version = release = continual.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "myst_parser",
    "sphinx_copybutton",
    "glossary_links",
    "outside_pages",
    "property_docstrings",
    "public_names",
    "search_words",
    "search_questions",
]
templates_path = ["_templates"]
exclude_patterns = ["_build", "_ext", "_templates"]

myst_heading_anchors = 4  # links to headings, as Git hosts name them
autosummary_generate = True
autosummary_ignore_module_all = False
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_param = False  # parameters that are described together stay together
maximum_signature_line_length = 88
python_use_unqualified_type_names = True
add_module_names = False
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

nitpicky = True  # a reference that leads nowhere is a warning, and warnings are errors
nitpick_ignore_regex = [
    (
        r"py:.*",
        r"(torch|nn|F|numpy|np|collections|typing|pathlib|os|types|abc|enum|fractions|asyncio|ssl|concurrent|redis|ray)\b.*",
    ),
]

html_theme = "furo"
html_title = f"continual {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_search_scorer = str(HERE / "_ext" / "scorer.js")
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#0b5cad", "color-brand-content": "#0b5cad"},
    "dark_css_variables": {"color-brand-primary": "#6cb6ff", "color-brand-content": "#6cb6ff"},
}


def public_bases(app: Sphinx, name: str, obj: object, options: object, bases: list[type | str]) -> None:
    """Show the base classes that readers know: public ones, those of torch by their public name, and built-in ones."""
    known: list[type | str] = []
    for base in bases:
        if not isinstance(base, type):  # Mapping[str, Tensor]
            known.append(base)
        elif getattr(nn, base.__name__, None) is base:
            known.append(f"``torch.nn.{base.__name__}``")
        elif base is not object and (not base.__module__.startswith("continual.") or base.__name__ in continual.__all__):
            known.append(base)
    bases[:] = known or ["``object``"]


def setup(app: Sphinx) -> None:
    app.add_lexer("mermaid", TextLexer)  # as text: drawing these diagrams needs a script from another server
    app.connect("autodoc-process-bases", public_bases)

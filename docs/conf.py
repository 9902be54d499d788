"""How Sphinx builds these pages: `make docs` writes them to docs/_build/html, and a warning is an error."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

import hf_nlpnotes

project = "hf_nlpnotes"
author = "The hf_nlpnotes maintainers"
project_copyright = author
version = release = hf_nlpnotes.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "markdown_docstrings",  # before napoleon: it turns Markdown in docstrings into what Sphinx reads
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "name_links",
    "command_help",
    "repository_links",
]
exclude_patterns = ["_build"]

# The pages are Markdown that reads well where it lies, too: headings get the anchors that they have on GitHub.
myst_heading_anchors = 3
myst_enable_extensions = ["linkify"]  # bare addresses are links, as on GitHub
myst_linkify_fuzzy_links = False  # but names of files are none

autodoc_default_options = {"members": True, "member-order": "bysource", "show-inheritance": True}
autodoc_typehints = "description"  # beside each parameter: signatures stay readable
autodoc_typehints_description_target = "documented"
autodoc_inherit_docstrings = False  # what transformers inherits is documented there
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 88
python_use_unqualified_type_names = True
toc_object_entries_show_parents = "hide"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False

# Every reference to a name of ours leads somewhere. Those of other packages would need their inventories, and a
# network.
nitpicky = True
# A type variable: the Sphinx of Python 3.10 looks for it among the classes.
nitpick_ignore = [("py:class", "hf_nlpnotes.pretraining.texts.Lines")]
nitpick_ignore_regex = [(r"py:.*", r"(?!hf_nlpnotes\.).*")]

templates_path: list[str] = []
smartquotes_action = "D"  # dashes alone: in Chinese fonts curly quotes are as wide as a character
html_theme = "furo"
pygments_dark_style = "github-dark"
html_title = f"hf_nlpnotes {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_copy_source = False
html_theme_options = {"navigation_with_keys": True}
copybutton_exclude = ".linenos, .gp, .go"

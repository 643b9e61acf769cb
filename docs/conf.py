"""How the site is built: ``make docs``. Nothing is fetched; ``-W`` makes every warning an error."""

from __future__ import annotations

import contextlib
import io
import os
from typing import TYPE_CHECKING, ClassVar

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

import frostline

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "frostline"
author = "the frostline authors"
version = release = frostline.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["pictures/README.md", "**/.ipynb_checkpoints"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "show-inheritance": False, "exclude-members": "set_fit_request,set_score_request"}
html_theme = "furo"
html_title = f"frostline {release}"
html_copy_source = html_show_sourcelink = False
html_static_path: list[str] = []
# Links out of docs/ go to files of the repository, which is no page here; tests/unit/test_docs.py checks that they are there.
suppress_warnings = ["myst.xref_missing", "misc.highlighting_failure"]


class CommandHelp(SphinxDirective):
    """``{command-help}``: the help of every verb, as the installed command prints it."""

    has_content: ClassVar[bool] = False

    def run(self) -> list[nodes.Node]:
        """One section a verb."""
        from frostline.cli.main import app, run

        os.environ["COLUMNS"] = "100"
        names = [[command.callback.__name__] for command in app.registered_commands if command.callback]
        names += [["cache", verb] for verb in ("list", "verify", "prune")]
        found: list[nodes.Node] = []
        for words in names:
            text = io.StringIO()
            with contextlib.redirect_stdout(text):
                run([*words, "--help"])
            title = f"frostline {' '.join(words)}"
            section = nodes.section(ids=[nodes.make_id(title)], names=[title])
            section += nodes.title(text=title)
            section += nodes.literal_block(text.getvalue(), text.getvalue().strip(), language="text")
            found.append(section)
        return found


def setup(app: Sphinx) -> dict[str, bool]:
    """Sphinx calls this."""
    app.add_directive("command-help", CommandHelp)
    return {"parallel_read_safe": True}

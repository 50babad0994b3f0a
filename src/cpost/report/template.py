"""The only door to jinja2: puts a page's text into its templates, escaped.

Whatever a template is given stands on the page as text: markup is escaped, and so are characters that do not print.
Only the project's own style and script go in as they are. The page allows that one script, by its hash, and no address.
"""

from __future__ import annotations

import base64
import hashlib

from jinja2 import Environment, PackageLoader, StrictUndefined

from cpost.report.view import Page
from cpost.terminal import visible

GENERATOR = '<meta name="generator" content="cpost '  # stands in the head of every page, the version behind it
_PAGE, _SCRIPT = "page.html", "script.js"


def render_page(page: Page) -> str:
    """The page as HTML text."""
    environment = Environment(
        loader=PackageLoader("cpost", "report/templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_printable,
    )
    script, *_ = environment.loader.get_source(environment, _SCRIPT)  # type: ignore[union-attr]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template(_PAGE).render(page=page, script=script, script_hash=digest)


def _printable(value: object) -> object:
    """Text of a stranger, nothing in it that turns the direction of others or hides them; markup is a subclass."""
    return visible(value) if type(value) is str else value

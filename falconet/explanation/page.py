"""The HTML page of explanations, from the template `page.html.jinja`: no script, no request to anywhere."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

from falconet.escaping import escape_page
from falconet.explanation.faithfulness import Score


@dataclass(frozen=True)
class PageFigure:
    """A picture on a page."""

    png: bytes
    alt: str
    """Alternative text of the picture."""
    caption: str
    tokens: tuple[tuple[str, float], ...] = ()
    """Parts of a text with their relevance from -1 to 1, shown as text on the page; empty for other samples."""

    @property
    def uri(self) -> str:
        """The picture as a data URI."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode("ascii")


@dataclass(frozen=True)
class Section:
    """A section of a page."""

    title: str
    note: str
    plates: tuple[PageFigure, ...]


def render_explanations(title: str, scores: Sequence[Score], best: str | None, sections: Sequence[Section]) -> str:
    """Return the HTML page of explanations."""
    import jinja2

    template = resources.files("falconet.explanation").joinpath("page.html.jinja").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, finalize=escape_page, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(template).render(title=title, scores=scores, best=best, sections=sections)

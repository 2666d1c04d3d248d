"""Names that come from data, written where they are only names: one function for each place. Imports no torch.

Labels, sources, file names, columns and the errors that quote them are whatever a stranger wrote: control characters
that a terminal obeys, marks that turn the direction of text around, markup that a page or a model card would follow.
YAML is written by `yaml.safe_dump` and JSON by `json`, which escape by themselves.
"""

from __future__ import annotations

import re
import unicodedata

_HIDDEN = frozenset("\u061c\u200b\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069\ufeff")
"""Characters that change the direction of text or have no width, except the joiners of emoji and of Persian."""
_CONTROLS = frozenset(("Cc", "Cs", "Zl", "Zp"))
"""Unicode's categories of control characters, lone surrogates, and separators of lines and paragraphs."""
_MARKDOWN = re.compile(
    r"[\\`*\[\]|~$#!@{}]"  # What begins emphasis, code, links, tables, formulas, mentions.
    r"|(?<![^\W_])_|_(?![^\W_])"  # Within a word an underscore is a letter.
    r"|^[-+=]"
    r"|(?<=\bwww)\.|(?<=\bhttp):|(?<=\bhttps):|(?<=\bftp):|(?<=\bmailto):|(?<=\bxmpp):",  # What GitHub makes links of.
    re.IGNORECASE,
)


def escape_line(text: str) -> str:
    r"""Return a text for one line of a terminal, a log or a plain file: control characters as `\x1b`, breaks too."""
    return "".join(escape_character(mark) if _is_control(mark) else mark for mark in text)


def escape_lines(text: str) -> str:
    """`escape_line` for a text of several lines, such as a traceback, whose breaks and tabs stay."""
    return "".join(escape_character(mark) if _is_control(mark) and mark not in "\n\t" else mark for mark in text)


def escape_markdown(text: str) -> str:
    """Return a text for a line of Markdown, or a cell of its tables, that renders as the text itself."""
    line = _MARKDOWN.sub(r"\\\g<0>", escape_line(text))
    return line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def escape_page(value: object) -> object:
    """Return what a template of HTML shows of a value; its markup is left to autoescaping.

    For `jinja2.Environment(finalize=...)`: texts lose what a browser would obey or hide, all else stays as it is.
    """
    return value if type(value) is not str else escape_lines(value)


def _is_control(mark: str) -> bool:
    """Whether a character does something instead of being seen."""
    return mark in _HIDDEN or unicodedata.category(mark) in _CONTROLS


def escape_character(mark: str) -> str:
    """Return a character by its number, as Python writes it."""
    code = ord(mark)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"

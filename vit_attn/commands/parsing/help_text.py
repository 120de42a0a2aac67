"""Help texts of argparse that are wrapped to the terminal, paragraph by paragraph."""

import argparse
import re
import textwrap

ITEM = re.compile(r"  \S.*?  +(?=\S)")
"""Beginning of a line of a list: its name and the space after it."""
COMMAND = "  vit-attn "


class ParagraphHelpFormatter(argparse.HelpFormatter):
    """Formatter that wraps the paragraphs of a description, hangs the texts of its lists, and keeps its commands."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return wrap_paragraphs(text, width)


def wrap_paragraphs(text: str, width: int) -> str:
    r"""Wrap a text of paragraphs, lists and commands.

    >>> print(wrap_paragraphs("One two\nthree.\n\n  a   first\n      item\n  b   last\n\n  vit-attn fit", 12))
    One two
    three.
    <BLANKLINE>
      a   first
          item
      b   last
    <BLANKLINE>
      vit-attn fit

    Args:
        text: Paragraphs between empty lines. A list has lines of two spaces, a name, spaces and a text, whose other
            lines are indented as far.
        width: Characters of a line.
    """
    return "\n\n".join(_wrap_paragraph(paragraph, width) for paragraph in text.rstrip().split("\n\n"))


def _wrap_paragraph(paragraph: str, width: int) -> str:
    if paragraph.startswith(COMMAND):
        return paragraph
    parts: list[tuple[str, list[str]]] = []
    for line in paragraph.splitlines():
        item = ITEM.match(line)
        if item or not parts:
            prefix = item[0] if item else ""
            parts.append((prefix, [line.removeprefix(prefix)]))
        else:
            parts[-1][1].append(line.strip())
    return "\n".join(
        textwrap.fill(
            " ".join(lines),
            width,
            initial_indent=prefix,
            subsequent_indent=" " * len(prefix),
            break_long_words=False,
            break_on_hyphens=False,
        )
        for prefix, lines in parts
    )

"""Hooks of mkdocs: links from docs/ to files that have no page on the site, and roles in docstrings.

On the site, the text of such a link remains, or a link to the repository where mkdocs.yml names a ``repo_url``. A link
to a file that does not exist is left as it is, for ``mkdocs build --strict`` to report. Of a role (func, class, …), the
site shows the name as code.
"""

import re
from pathlib import Path
from typing import Any

LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(((?:\.\./)+[^)#\s]+)(#[^)\s]*)?\)")
ROLE = re.compile(r":(?:attr|class|data|func|meth|mod):<code>~?([^<]*)</code>")
ROOT = Path(__file__).parent.parent


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Rewrite the links of a page."""
    folder, docs = Path(page.file.abs_src_path).parent, Path(config["docs_dir"]).resolve()

    def rewritten(link: re.Match[str]) -> str:
        target = (folder / link[2]).resolve()
        if not target.exists() or target.is_relative_to(docs) or not target.is_relative_to(ROOT):
            return link[0]
        address = config["repo_url"]
        path = target.relative_to(ROOT).as_posix()
        return f"[{link[1]}]({address.rstrip('/')}/blob/main/{path}{link[3] or ''})" if address else link[1]

    return LINK.sub(rewritten, markdown)


def on_page_content(html: str, page: Any, config: Any, files: Any) -> str:
    """Leave out the names of roles, which mkdocstrings does not know."""
    return ROLE.sub(r"<code>\1</code>", html)

"""The site that mkdocs builds of docs/; `mkdocs build --strict` itself is a check of .ci/run."""

import re
from types import SimpleNamespace

import pytest

from tests.test_docs import ROOT, script


def rewritten(markdown: str, repo_url: str | None = None, page: str = "scale.md") -> str:
    source = SimpleNamespace(file=SimpleNamespace(abs_src_path=str(ROOT / "docs" / page)))
    config = {"docs_dir": str(ROOT / "docs"), "repo_url": repo_url}
    return script("docs_links").on_page_markdown(markdown, source, config, None)


@pytest.mark.parametrize(
    ("link", "page", "on_the_site"),
    [
        (
            "[quick](../configs/quickstart.yaml)",
            "scale.md",
            "[quick](https://a.org/x/blob/main/configs/quickstart.yaml)",
        ),
        ("[start](../README.md#train)", "scale.md", "[start](https://a.org/x/blob/main/README.md#train)"),
        ("[scale](../scale.md)", "api/model.md", "[scale](../scale.md)"),
        ("[gone](../configs/gone.yaml)", "scale.md", "[gone](../configs/gone.yaml)"),
        ("[up](../../outside.md)", "scale.md", "[up](../../outside.md)"),
    ],
)
def test_links_that_leave_docs_lead_to_the_repository(link: str, page: str, on_the_site: str):
    assert rewritten(f"See {link}.", "https://a.org/x/", page) == f"See {on_the_site}."


def test_without_an_address_of_the_repository_their_text_remains():
    assert rewritten("See [quick](../configs/quickstart.yaml).") == "See quick."


def test_a_role_in_a_docstring_is_shown_as_code():
    hook = script("docs_links").on_page_content
    html = "<p>As for :func:<code>~vit_attn.model.rollout</code>, <code>:x:</code> and :data:<code>LOGGED</code>.</p>"
    expected = "<p>As for <code>vit_attn.model.rollout</code>, <code>:x:</code> and <code>LOGGED</code>.</p>"
    assert hook(html, None, None, None) == expected


def test_every_page_is_in_the_navigation_once():
    found = [*(ROOT / "docs").rglob("*.md"), *(ROOT / "docs").rglob("*.ipynb")]
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in found}
    listed = re.findall(r": ([\w/]+\.(?:md|ipynb))$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(pages)

"""The page as someone meets it who has read nothing: sentence, terms, captions, sheet, narrow screens, keyboard."""

import re
from pathlib import Path

import numpy as np
import pytest

from vit_attn.cli import main
from vit_attn.tb_plugin.summary import MethodRows

GRID, PREFIX = (4, 6), 2
TOKENS = PREFIX + GRID[0] * GRID[1]
STATE = "vit_attn.attention"
CHECKS = Path(__file__).with_name("accessibility.js")
OWN = ("legrad", "gradient_rollout", "value_weighted")


@pytest.fixture(scope="module")
def address(tmp_path_factory, write_step, serve, chromium):
    folder = tmp_path_factory.mktemp("first")
    rng = np.random.default_rng(0)
    relevance = rng.random((2, TOKENS, TOKENS), dtype=np.float32)
    rows = [
        MethodRows(name, name, "Doe 2020", name != "value_weighted", False, rng.random((2, TOKENS))) for name in OWN
    ]
    for step in (0, 10):
        write_step(folder / "lr=0.1" / "a", step, GRID, PREFIX, relevance=relevance)
    write_step(folder / "lr=0.2" / "a", 10, GRID, PREFIX, relevance=relevance, methods=rows)
    return serve(folder, run="lr=0.2/a")


@pytest.fixture
def tab(open_plugin, address):
    """The tab at run ``lr=0.1/a`` and step 10."""

    def open_tab(width=1400, height=1000, in_tensorboard=False, **state):
        kept = {"run": "lr=0.1/a", "step": 10} | state
        frame = open_plugin(address, kept, (width, height), in_tensorboard=in_tensorboard)
        frame.locator("figure[data-name=Map] .marks").wait_for()
        return frame

    return open_tab


def test_a_sentence_says_what_is_seen_and_terms_open_by_click_and_keyboard(tab, page):
    frame = tab()
    heading = frame.get_by_role("heading", level=1)
    assert heading.inner_text().startswith("Which patches speak for the prediction “dog” (relevance")
    frame.get_by_role("radio", name="Rollout").click()
    assert heading.inner_text() == "What the CLS token attends to, through all layers (attention rollout)."
    term = frame.get_by_role("button", name="attention rollout ?")
    term.focus()
    page.keyboard.press("Enter")
    bubble = frame.get_by_role("dialog", name="attention rollout")
    assert "half attention, half identity" in bubble.inner_text()
    link = bubble.get_by_role("link", name="Abnar & Zuidema 2020, arXiv 2005.00928")
    assert link.get_attribute("href") == "https://arxiv.org/abs/2005.00928"
    page.keyboard.press("m")  # the keys of the page rest while a term is read
    assert heading.inner_text().endswith("(attention rollout).")
    page.keyboard.press("Escape")
    bubble.wait_for(state="detached")
    assert term.evaluate("button => button === document.activeElement")


def test_the_guide_is_served_and_holds_every_term(tab, page, address):
    frame = tab()
    guide = frame.get_by_role("link", name="Guide").get_attribute("href")
    page.goto(guide, wait_until="commit")
    page.get_by_role("heading", level=1, name="How to read the Attention tab").wait_for()
    terms = page.locator("dt").all_text_contents()
    assert {"relevance", "attention rollout", "pooled row", "prefix token", "attention sink", "entropy"} <= set(terms)
    assert page.locator("a[href='https://arxiv.org/abs/2103.15679']").count() >= 1


def test_an_exported_page_has_the_guide_inside(page, tmp_path, write_step):
    write_step(tmp_path / "run", 0)
    assert main(["export-html", str(tmp_path / "run")]) == 0
    page.goto((tmp_path / "run" / "attention.html").as_uri())
    page.locator("figure[data-name=Map] .marks").wait_for()
    page.get_by_role("button", name="Guide").click()
    guide = page.get_by_role("dialog", name="Guide")
    guide.get_by_text("How spread out a head's attention is").wait_for()
    guide.get_by_role("button", name="Close").click()
    guide.wait_for(state="detached")


def test_captions_name_label_prediction_step_and_run(tab):
    frame = tab(image=1, pin={"run": "lr=0.1/a", "step": 0, "image": 1})
    captions = frame.locator("figure[data-name=Image] figcaption")
    assert re.match(r"Image 2 label: dog · predicted: <b>owl</b> 70\s%.*✗", captions.inner_text())
    thumb = frame.get_by_role("radio", name=re.compile("^image 2"))
    assert re.search(r"label: dog\s+predicted: <b>owl</b>\s+70\s%", thumb.inner_text())
    a, b = (frame.locator(f"figure[data-name={name}] figcaption") for name in ("A", "Map"))
    assert (a.inner_text(), b.inner_text()) == ("A step 0", "B step 10")
    frame.get_by_label("Run").select_option("lr=0.2/a")
    frame.locator("figure[data-name=Map] figcaption", has_text="lr=0.2").wait_for()
    assert (a.inner_text(), b.inner_text()) == ("A step 0 · lr=0.1 · a", "B step 10 · lr=0.2 · a")
    options = frame.get_by_label("Run").locator("option")
    assert options.all_inner_texts() == ["lr=0.1 · a", "lr=0.2 · a"]
    assert frame.get_by_label("Run").get_attribute("title") == "lr=0.2/a"


def test_the_colour_bar_marks_uniform_attention_of_fractions_alone(tab):
    frame = tab(method="raw")
    tick = frame.locator("figure[data-name=Map] .tick")
    assert re.fullmatch(r"uniform 1/26 = 3[.]85\s%", tick.inner_text())
    frame.get_by_role("radio", name="Relevance").click()
    assert tick.is_hidden()


def test_a_head_that_is_clicked_opens_in_place_and_the_change_of_method_is_said(tab):
    frame = tab(height=600)
    cell = frame.get_by_role("button", name=re.compile("^layer 2, head 3"))
    cell.click()
    head = frame.get_by_role("region", name="Chosen head")
    head.get_by_role("heading", name="Layer 2, head 3").wait_for()
    assert head.locator("figure[data-name=Head] .marks").is_visible()
    edges = head.locator("figure[data-name=Head] .base").evaluate(
        "map => [map.getBoundingClientRect().top, map.getBoundingClientRect().bottom, innerHeight]"
    )
    assert 0 <= edges[0] < edges[1] <= edges[2]
    said = frame.get_by_role("status").filter(has_text="The method is now raw attention, of layer 2, head 3")
    assert "it was relevance" in said.inner_text()
    assert re.search(r"entropy\s*[?]?\s*[\d.]+ nats", head.inner_text())
    head.get_by_role("button", name="Back to relevance").click()
    head.wait_for(state="hidden")
    assert frame.get_by_role("radio", name="Relevance").get_attribute("aria-checked") == "true"
    cell.click()
    head.get_by_role("button", name="Close").click()
    assert head.is_hidden()
    assert cell.evaluate("button => button === document.activeElement")


def test_the_sheet_has_headings_units_its_method_and_both_sides(tab):
    frame = tab(method="rollout", pin={"run": "lr=0.1/a", "step": 0, "image": 0})
    sheet = frame.locator(".sheet")
    assert sheet.locator(".headings").first.inner_text().split("\n")[:2] == ["head 1", "head 2"]
    assert sheet.get_by_text("raw attention of each head, whatever the method above (attention rollout)").is_visible()
    assert sheet.get_by_text("left A, right B").is_visible()
    assert sheet.locator(".small").first.locator("canvas").count() == 2
    for order, unit in (("entropy", "nats"), ("distance", "px"), ("largest fraction", "%")):
        sheet.get_by_role("radio", name=order).click()
        assert sheet.locator(".small .name").first.inner_text().endswith(unit)


def test_many_methods_are_a_menu_in_groups(tab):
    frame = tab(run="lr=0.2/a")
    menu = frame.get_by_role("combobox", name="Method")
    groups = menu.locator("optgroup").evaluate_all(
        "groups => groups.map((group) => [...group.children].map(({value}) => value))"
    )
    assert groups == [["relevance", "legrad", "gradient_rollout"], ["raw", "rollout", "value_weighted"]]
    menu.select_option("legrad")
    frame.get_by_role("heading", level=1, name="Which patches speak for the prediction “dog” (legrad)").wait_for()
    assert frame.get_by_text("The method has no query").first.is_visible()


@pytest.mark.parametrize(("width", "height"), [(360, 740), (390, 844), (800, 600), (720, 450)])  # 720: 1440 at 200 %
def test_on_a_narrow_page_the_slider_and_the_map_come_first(tab, width, height):
    frame = tab(width, height, in_tensorboard=(width, height) == (720, 450))
    assert frame.locator("html").evaluate("html => html.scrollWidth <= html.clientWidth")
    top = "element => element.getBoundingClientRect().top"
    slider, place = (
        frame.locator(name).evaluate(top) for name in (".timeline [type=range]", "figure[data-name=Map] .base")
    )
    assert 0 < slider < place < 0.75 * height - 64
    assert place < frame.locator(".strip").evaluate(top)
    controls = frame.locator("aside details")
    assert not controls.evaluate("details => details.open")
    frame.get_by_text("Controls").click()
    assert frame.get_by_label("Layer", exact=True).is_visible()
    assert frame.locator("html").evaluate("html => html.scrollWidth <= html.clientWidth")


def test_keys_work_on_arrival(tab, page):
    frame = tab(in_tensorboard=True)
    frame.locator("main:focus").wait_for()
    page.keyboard.press("m")
    frame.get_by_role("heading", level=1, name="(raw attention)").wait_for()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_everything_has_a_name_a_size_and_contrast(tab, theme):
    frame = tab(theme=theme, method="raw", layer=0, head=0, image=1, pin={"run": "lr=0.1/a", "step": 0, "image": 1})
    frame.get_by_role("button", name=re.compile("^layer 1, head 2")).click()
    frame.get_by_role("region", name="Chosen head").wait_for()
    found = frame.locator("html").evaluate(CHECKS.read_text())
    assert found == {"headings": 1, "unnamed": [], "small": [], "tiny": [], "faint": []}

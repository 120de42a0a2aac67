"""The live page in a real browser: pictures, predictions, questions, two networks; its numbers are those of Python."""

import re
from pathlib import Path

import numpy as np
import pytest

from tests import conftest
from tests.explore.browsing import Reference, drop, picture, serving, settled, values

page = conftest.page  # a tab of the browser; in this folder the name stands for a client without one
CIFAR, COINS = "vit_attn_cifar10_patch4_32", "vit_attn_coins_patch4_32"
CHECKS = Path(__file__).parents[1] / "tb_plugin" / "accessibility.js"
CONTENT, OTHER = picture(1), picture(2, (48, 40))
PATCH = (2, 5)
TOKEN = 8 * PATCH[0] + PATCH[1]  # of the CIFAR-10 network, which has no prefix


@pytest.fixture(scope="module")
def address(chromium):
    with serving([CIFAR]) as found:
        yield found


@pytest.fixture(scope="module")
def address_of_two(chromium):
    with serving([CIFAR, COINS]) as found:
        yield found


@pytest.fixture(scope="module")
def cifar():
    return Reference(CIFAR, CONTENT)


def show(page, address, *files):
    page.goto(address)
    settled(page)
    drop(page, *(files or [("first.png", CONTENT)]))
    page.locator(".prediction .class").first.wait_for()
    settled(page)


def named(page, name):
    """Wait until a picture is shown."""
    page.locator(f'.thumb[aria-checked=true][title*="{name}"]').wait_for()
    settled(page)
    assert page.title().startswith(name)


def marks(page, name="Map"):
    return page.locator(f"figure[data-name={name}] .marks")


def click_patch(page, patch=PATCH):
    box = marks(page).bounding_box()
    marks(page).click(position={"x": (patch[1] + 0.5) * box["width"] / 8, "y": (patch[0] + 0.5) * box["height"] / 8})
    settled(page)


def choose_class(page, text, steps=0):
    """Write a part of a name, go down some options, and take one; returns its name."""
    search = page.get_by_role("combobox", name="Class that the map is for")
    search.click()
    search.fill(text)
    for _ in range(steps):
        search.press("ArrowDown")
    name = page.locator("[role=option][aria-selected=true] .name").inner_text()
    search.press("Enter")
    settled(page)
    return name


def listed(page, side=0):
    rows = page.locator(".prediction").nth(side).locator(".class")
    return [tuple(row.locator(part).inner_text() for part in (".name", ".chance")) for row in rows.all()]


def percent(chance):
    number = 100 * chance
    return f"{number:.0f}" if number >= 9.95 else f"{number:.1f}" if number >= 1 else "<1"


def test_a_page_without_pictures_says_what_to_do_and_takes_one(page, chromium):
    said = []
    page.on("console", lambda message: said.append(message.text))
    with serving([CIFAR]) as address:
        page.goto(address)
        page.get_by_role("heading", level=1, name=f"Ask {CIFAR} about a picture of yours").wait_for()
        assert page.get_by_label("Network", exact=True).input_value() == CIFAR
        assert page.locator("figure[data-name=Map]").is_hidden()
        page.locator("input[type=file]").set_input_files({"name": "mine.png", "mimeType": "", "buffer": CONTENT})
        marks(page).wait_for()
        assert page.title() == f"mine.png · {CIFAR} · vit-attn explore"
        assert page.get_by_role("heading", level=1).inner_text().startswith("Which patches speak for the prediction")
    assert said == []


def test_the_predictions_are_those_of_the_network_and_nothing_speaks_of_a_training(page, address, cifar):
    show(page, address)
    found = [(name, chance.split("\u202f")[0]) for name, chance in listed(page)]
    assert found == [(name, percent(chance)) for name, chance in cifar.top()]
    thumb = page.get_by_role("radiogroup", name="Pictures").get_by_role("radio", checked=True)
    assert thumb.inner_text().split("\n")[:2] == ["first.png", cifar.top()[0][0]]
    page.get_by_role("tab", name="All images").click()
    page.get_by_text("on one scale").wait_for()
    text = page.locator("body").inner_text()
    for word in ("label", "wrong only", "✓", "✗", "step", "logged", "null", "undefined", "NaN", "Run"):
        assert not re.search(rf"\b{word}\b" if word.isalpha() else word, text), word
    assert page.get_by_role("slider", name="Training step").count() == 0
    assert page.get_by_role("tab", name="Heads over training").count() == 0
    page.get_by_role("tab", name="All images").click()


@pytest.mark.parametrize(
    ("method", "by_query", "other_class", "tolerance"),
    [
        ("relevance", False, False, 0.006),  # from maps of 8 bits, and a mean of such rows
        ("relevance", False, True, 1e-5),  # from the network, as are all below
        ("relevance", True, True, 1e-5),
        ("rollout", True, False, 0.006),
        ("gradient_rollout", False, False, 1e-5),
        ("gradient_rollout", True, True, 1e-5),
        ("value_weighted", True, False, 1e-5),
        ("legrad", False, True, 1e-5),
    ],
)
def test_numbers_of_any_method_query_and_class_are_those_of_python(
    page, address, cifar, method, by_query, other_class, tolerance
):
    show(page, address)
    page.get_by_label("Method").and_(page.locator("select")).select_option(method)
    settled(page)
    name = choose_class(page, "s", 1) if other_class else None
    if by_query:
        click_patch(page)
    if name:
        assert name != cifar.top()[0][0]
        assert f"“{name}”" in page.get_by_role("heading", level=1).inner_text()
    wanted = cifar.row(method, TOKEN if by_query else None, name)
    if method == "relevance":  # the page shows it without the identity of the query, or of all patches, averaged
        wanted -= np.eye(len(wanted))[TOKEN] if by_query else 1 / len(wanted)
    found = values(page)["values"]
    assert np.abs(found - wanted).max() <= tolerance * np.abs(wanted).max()


def test_a_map_that_is_asked_for_by_query_says_why_it_has_no_matrix(page, address):
    show(page, address)
    page.get_by_label("Method").and_(page.locator("select")).select_option("gradient_rollout")
    settled(page)
    page.get_by_text("Gradient rollout is computed for one query at a time").wait_for()
    page.get_by_label("Method").and_(page.locator("select")).select_option("legrad")
    settled(page)
    click_patch(page)
    page.get_by_text("LeGrad has no query").first.wait_for()


def test_a_click_on_a_class_shows_what_speaks_for_it_whatever_the_method(page, address, cifar):
    show(page, address)
    page.get_by_label("Method").and_(page.locator("select")).select_option("rollout")
    name = cifar.top()[2][0]
    page.locator(".prediction .class").nth(2).click()
    settled(page)
    heading = page.get_by_role("heading", level=1).inner_text()
    assert heading.startswith(f"Which patches speak for the class “{name}”, which is not the one predicted (relevance")
    assert page.locator(".prediction .class[aria-pressed=true] .name").inner_text() == name
    page.get_by_role("button", name="Back to the predicted class").click()
    settled(page)
    assert f"prediction “{cifar.top()[0][0]}”" in page.get_by_role("heading", level=1).inner_text()


def test_several_pictures_are_taken_and_one_that_cannot_be_read_is_named(page, address):
    show(page, address, ("bad.jpg", b"no picture"), ("a.png", CONTENT), ("b.png", OTHER))
    alert = page.get_by_role("alert").filter(has_text="bad.jpg")
    alert.wait_for()
    names = page.locator(".thumb .name").all_inner_texts()
    assert names[-2:] == ["a.png", "b.png"]
    assert page.locator(".thumb[aria-checked=true] .name").inner_text() == "a.png"
    page.locator(".thumb").last.click()
    settled(page)
    assert page.title().startswith("b.png")
    assert alert.is_hidden()  # it was of what was shown before


def test_a_picture_is_pasted(page, address):
    page.goto(address)
    settled(page)
    page.evaluate(
        """bytes => {
          const data = new DataTransfer();
          data.items.add(new File([Uint8Array.from(bytes)], "image.png", { type: "image/png" }));
          document.dispatchEvent(new ClipboardEvent("paste", { clipboardData: data, bubbles: true }));
        }""",
        list(OTHER),
    )
    named(page, "image.png")


def test_a_file_of_the_command_that_cannot_be_read_gives_way_to_the_next(page, chromium, tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    (tmp_path / "good.png").write_bytes(CONTENT)
    with serving([CIFAR], [tmp_path / "bad.jpg", tmp_path / "good.png"]) as address:
        page.goto(address)
        named(page, "good.png")
        assert "bad.jpg" in page.get_by_role("alert").filter(has_text="bad.jpg").inner_text()
        drop(page, ("other.png", OTHER))
        named(page, "other.png")
        alert = page.get_by_role("alert").filter(has_text="bad.jpg")
        assert alert.is_hidden()
        page.locator(".thumb").first.click()
        alert.wait_for()
        settled(page)
        assert page.title().startswith("other.png")  # not the first picture that can be read


def test_two_networks_stand_side_by_side_on_one_picture_by_one_click(page, address_of_two, cifar):
    show(page, address_of_two)
    coins = Reference(COINS, CONTENT)
    page.get_by_label("Method").and_(page.locator("select")).select_option("rollout")
    page.get_by_role("group", name="Network beside it").get_by_role("button", name=COINS).click()
    settled(page)
    click_patch(page)
    names = [[name for name, _ in listed(page, side)] for side in (0, 1)]
    assert names == [[name for name, _ in reference.top()] for reference in (coins, cifar)]
    found = values(page)
    for values_of, wanted in (
        (found["values"], cifar.row("rollout", TOKEN)),
        (found["values_of_A"], coins.row("rollout", 1 + TOKEN)),  # behind its CLS token
    ):
        assert np.abs(values_of - wanted).max() <= 0.006 * wanted.max()
    page.get_by_text("not drawn: they have other tokens").first.wait_for()
    page.get_by_label("Network", exact=True).select_option(COINS)
    settled(page)
    assert [[name for name, _ in listed(page, side)] for side in (0, 1)] == names[::-1]
    drop(page, ("next.png", OTHER))
    named(page, "next.png")
    settled(page)
    page.get_by_text(f"A: {CIFAR}, next.png", exact=True).wait_for()  # the other network goes along
    page.get_by_role("group", name="Network beside it").get_by_role("button").click()
    settled(page)
    assert page.locator(".prediction").nth(1).is_hidden()


def test_a_reply_that_comes_after_a_newer_click_is_dropped_and_a_failure_is_said_and_asked_again(page, address, cifar):
    show(page, address)
    page.get_by_label("Method").and_(page.locator("select")).select_option("gradient_rollout")
    settled(page)
    held = []
    page.route(re.compile(r"/row\?.*query=0&"), lambda route: held.append(route))
    box = marks(page).bounding_box()
    marks(page).click(position={"x": 4, "y": 4})
    page.locator("body[aria-busy=true]").wait_for()
    page.get_by_text("Asking the network …").first.wait_for()
    marks(page).click(position={"x": 5.5 * box["width"] / 8, "y": 2.5 * box["height"] / 8})
    settled(page)
    held[0].continue_()
    page.wait_for_timeout(300)
    assert np.abs(values(page)["values"] - cifar.row("gradient_rollout", TOKEN)).max() <= 1e-5
    page.route(re.compile(r"/row\?.*query=9&"), lambda route: route.abort())
    click_patch(page, (1, 1))
    alert = page.get_by_role("alert").filter(has_text="The server does not answer.")
    alert.wait_for()
    click_patch(page)  # what was answered before is still here
    assert alert.is_hidden() or page.locator("figure[data-name=Map] .base").is_visible()
    click_patch(page, (1, 1))
    page.unroute_all()
    alert.get_by_role("button", name="Try again").click()
    settled(page)
    wanted = cifar.row("gradient_rollout", 9)
    assert np.abs(values(page)["values"] - wanted).max() <= 1e-5 * wanted.max()


def test_a_link_opens_the_same_view(page, address):
    show(page, address)
    name = choose_class(page, "ship")
    click_patch(page)
    page.wait_for_url(re.compile("target=ship.*query=|query=.*target=ship"))  # it is written now and then
    link, heading = page.url, page.get_by_role("heading", level=1).inner_text()
    page.evaluate("localStorage.clear()")
    page.goto("about:blank")
    page.goto(link)
    page.get_by_role("heading", level=1, name=f"“{name}”").wait_for()
    assert page.get_by_role("heading", level=1).inner_text() == heading


def test_a_saved_file_names_the_network_and_the_picture(page, address):
    show(page, address, ("my cat.png", CONTENT))
    named(page, "my cat.png")
    with page.expect_download() as download:
        page.get_by_role("button", name="CSV").click()
    assert download.value.suggested_filename == f"attention_{CIFAR}_my_cat.csv"
    text = Path(download.value.path()).read_text(encoding="utf-8")
    assert f"network,{CIFAR}" in text.replace("# ", "").replace(": ", ",")
    assert "my cat.png" in text
    assert "step" not in text
    with page.expect_download() as download:
        page.get_by_role("button", name="Save PNG").click()
    assert download.value.suggested_filename == f"attention_{CIFAR}_my_cat.png"


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(1440, 900), (800, 600), (390, 844)])
def test_everything_has_a_name_a_size_and_contrast_and_fits(page, address_of_two, width, height, theme):
    page.emulate_media(color_scheme=theme)
    page.set_viewport_size({"width": width, "height": height})
    show(page, address_of_two)
    if width < 901:
        page.get_by_text("Controls").first.click()
    page.get_by_role("group", name="Network beside it").get_by_role("button").click()
    settled(page)
    page.get_by_role("combobox", name="Class that the map is for").click()
    page.get_by_role("listbox").wait_for()
    found = page.evaluate(CHECKS.read_text())
    assert found == {"headings": 1, "unnamed": [], "small": [], "tiny": [], "faint": []}
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")

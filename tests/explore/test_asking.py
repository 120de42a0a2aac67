"""Asking by cutting in a real browser: the logits on the page are those of the network cut in Python."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests import conftest
from tests.explore.browsing import Reference, drop, picture, serving, settled
from vit_attn.attention_maps import ablate, edges, knockout, record, rollout

CIFAR, CHECKS = "vit_attn_cifar10_patch4_32", Path(__file__).parents[1] / "tb_plugin" / "accessibility.js"
CONTENT, OTHER = picture(1), picture(2)
PATCH, SECOND = (2, 5), (4, 1)
MINUS = "\u2212"  # as wide as a plus
page = conftest.page  # a tab of the browser; in this folder the name stands for a client without one


@pytest.fixture(scope="module")
def address(chromium: str) -> Iterator[str]:
    with serving([CIFAR]) as found:
        yield found


@pytest.fixture(scope="module")
def cifar() -> Reference:
    return Reference(CIFAR, CONTENT)


def token(patch: tuple[int, int]) -> int:
    return 8 * patch[0] + patch[1]  # the CIFAR-10 network has no prefix


def others_to(*patches: tuple[int, int]) -> Tensor:
    return edges(64, range(64), [token(patch) for patch in patches]).fill_diagonal_(False)


def show(page: Any, address: str, mode: str) -> None:
    page.goto(address)
    settled(page)
    drop_one(page, "first.png", CONTENT)
    page.locator(".prediction .class").first.wait_for()
    page.get_by_role("radio", name=mode).click()


def drop_one(page: Any, name: str, content: bytes) -> None:
    """Drop a picture, and wait until it is shown: the page may show an older one of this name."""
    with page.expect_response("**/picture") as response:
        drop(page, (name, content))
    image = response.value.json()["image"]
    page.locator(f".thumb:nth-of-type({image + 1})[aria-checked=true]").wait_for()
    settled(page)


def click_patch(page: Any, patch: tuple[int, int] = PATCH) -> None:
    marks = page.locator("figure[data-name=Map] .marks")
    marks.scroll_into_view_if_needed()
    box = marks.bounding_box()
    marks.click(position={"x": (patch[1] + 0.5) * box["width"] / 8, "y": (patch[0] + 0.5) * box["height"] / 8})


def answered(page: Any, cuts: int) -> tuple[float, float]:
    """Logit and probability of the watched class after so many cuts."""
    page.locator(".cuts li").nth(cuts - 1).wait_for()
    page.locator(".answered[aria-busy=false]").wait_for()
    assert page.locator(".cuts li").count() == cuts
    logit, chance = (page.locator(".watched").nth(i).get_attribute("data-after") for i in range(2))
    return float(logit), float(chance)


def expected(cifar: Reference, *contexts: Any) -> tuple[float, float]:
    """The same by Python, of the class that the whole network predicts."""
    target = int(cifar.logits.argmax())
    with torch.no_grad():
        for context in contexts:
            context.__enter__()
        logits = cifar.network.net(cifar.images)[0]
        for context in reversed(contexts):
            context.__exit__(None, None, None)
    return float(logits[target]), float(logits.softmax(dim=-1)[target])


def test_a_click_on_a_patch_cuts_it_and_shows_the_logits_of_the_cut_network(page, address, cifar):
    show(page, address, "Cut patches")
    click_patch(page)
    net = cifar.network.net
    assert answered(page, 1) == pytest.approx(expected(cifar, knockout(net, others_to(PATCH))), abs=1e-4)
    before = page.locator(".watched").first.inner_text().split()[1]
    assert float(before.replace(MINUS, "-")) == pytest.approx(float(cifar.logits.detach().max()), abs=0.006)
    click_patch(page, SECOND)
    both = expected(cifar, knockout(net, others_to(PATCH, SECOND)))
    assert answered(page, 2) == pytest.approx(both, abs=1e-4)
    shown = page.locator(".outcome tr.target td:last-child").inner_text().replace("%", "").strip()
    assert float(shown.replace(">", "").replace("<", "")) == pytest.approx(100 * both[1], abs=1)
    click_patch(page)
    assert answered(page, 1) == pytest.approx(expected(cifar, knockout(net, others_to(SECOND))), abs=1e-4)


def test_edges_and_heads_are_cut_as_the_panel_says(page, address, cifar):
    show(page, address, "Cut edge")
    page.get_by_label("Layers in which the edge is cut").select_option("layer 2")
    page.get_by_label("Heads in which the edge is cut").select_option("head 1")
    click_patch(page)
    net = cifar.network.net
    pooled = edges(64, range(64), [token(PATCH)])  # a mean: every row to the key
    one = expected(cifar, knockout(net, pooled, layers=[1], heads=[0]))
    assert answered(page, 1) == pytest.approx(one, abs=1e-4)
    page.get_by_role("radio", name="Cut head").click()
    page.get_by_role("group", name="Heads to cut").get_by_role("button", name="layer 3, head 2").click()
    two = expected(cifar, knockout(net, pooled, layers=[1], heads=[0]), ablate(net, {2: [1]}))
    assert answered(page, 2) == pytest.approx(two, abs=1e-4)
    struck = page.locator(".sheet .small.is-cut")
    assert struck.count() == 1
    assert struck.get_attribute("aria-label").startswith("cut: layer 3, head 2")
    page.locator(".sheet .small").first.click()
    three = expected(cifar, knockout(net, pooled, layers=[1], heads=[0]), ablate(net, {0: [0], 2: [1]}))
    assert answered(page, 3) == pytest.approx(three, abs=1e-4)


def test_a_query_is_chosen_and_then_its_edge_is_cut(page, address, cifar):
    show(page, address, "Cut edge")
    page.get_by_role("button", name="Choose another query").click()
    click_patch(page, SECOND)
    settled(page)
    click_patch(page)
    cut = edges(64, [token(SECOND)], [token(PATCH)])
    assert answered(page, 1) == pytest.approx(expected(cifar, knockout(cifar.network.net, cut)), abs=1e-4)
    assert "row 5, column 2 → row 3, column 6" in page.locator(".cuts").inner_text()


def test_undo_redo_history_and_clear_go_back_and_forth(page, address):
    show(page, address, "Cut patches")
    click_patch(page)
    first = answered(page, 1)
    click_patch(page, SECOND)
    second = answered(page, 2)
    page.keyboard.press("Control+z")
    assert answered(page, 1) == first
    page.keyboard.press("Control+Shift+z")
    assert answered(page, 2) == second
    page.get_by_role("button", name="Undo").click()
    page.get_by_role("button", name="Undo").click()
    assert page.locator(".cuts").is_hidden()
    page.get_by_text("History").click()
    rows = page.locator(".history button")
    assert rows.count() == 3
    rows.nth(2).click()
    assert answered(page, 2) == second
    assert rows.nth(2).get_attribute("aria-current") == "step"
    page.get_by_role("button", name="Put back").first.click()
    assert answered(page, 1) != first
    page.get_by_role("button", name="Clear").click()
    assert page.locator(".cuts").is_hidden()
    assert page.locator(".cut-outcome").is_hidden()


def test_the_maps_of_the_cut_network_are_shown_on_demand(page, address, cifar):
    show(page, address, "Cut patches")
    page.get_by_role("combobox", name="Method").select_option("rollout")
    click_patch(page)
    answered(page, 1)
    page.get_by_role("radio", name="after the cuts").click()
    page.get_by_role("heading", level=1).filter(has_text="with 1 cut").wait_for()
    settled(page)
    marks = page.locator("figure[data-name=Map] .marks")
    with torch.no_grad(), record(cifar.network.net) as recording, knockout(cifar.network.net, others_to(PATCH)):
        cifar.network.net(cifar.images)
    row = rollout(recording)[0, 0]
    box = marks.bounding_box()
    page.mouse.move(box["x"] + 5.5 * box["width"] / 8, box["y"] + 2.5 * box["height"] / 8)
    text = page.locator(".readout").inner_text().split(": ")[1]
    value = float(text.split("%")[0].replace("\u202f", ""))
    assert value == pytest.approx(100 * float(row[token(PATCH)]), rel=0.01)
    page.get_by_role("radio", name="as it was").click()
    settled(page)
    assert "cut" not in page.get_by_role("heading", level=1).inner_text()
    page.get_by_role("radio", name="both").click()
    page.locator("figure[data-name=Difference]").wait_for()


def test_a_try_and_a_judgement_say_what_the_server_measured(page, address):
    show(page, address, "Look")
    with page.expect_response("**/try") as response:
        page.get_by_role("button", name="Try this map").click()
    tried = response.value.json()
    page.locator(".tried").wait_for()
    change = f"{tried['ranked']['logit']:+.2f}".replace("-", MINUS)
    assert f"{change} without the 3 patches that relevance ranks first" in page.locator(".tried").inner_text()
    page.get_by_role("button", name="Cut these 3 patches").click()
    logit, _ = answered(page, 3)
    shown = page.locator(".watched").first.inner_text()
    assert change in shown
    assert logit < 100
    page.get_by_role("button", name="Judge this map").click()
    page.locator(".judged li").wait_for()
    assert "Comparison with baselines of relevance, for this image" in page.locator(".notes").inner_text()


def test_another_picture_has_its_own_cuts(page, address):
    show(page, address, "Cut patches")
    click_patch(page)
    first = answered(page, 1)
    page.get_by_role("radio", name="after the cuts").click()
    settled(page)
    drop_one(page, "second.png", OTHER)
    assert page.locator(".cuts").is_hidden()
    page.keyboard.press("k")
    page.locator("figcaption", has_text="first.png").wait_for()
    settled(page)
    assert answered(page, 1) == first
    assert "with 1 cut" in page.get_by_role("heading", level=1).inner_text()


def test_a_click_while_another_picture_loads_is_not_mixed_with_that_picture(page, address):
    show(page, address, "Cut patches")
    drop_one(page, "second.png", OTHER)
    click_patch(page, SECOND)
    second = answered(page, 1)
    asked, held = [], []
    page.on("request", lambda request: asked.append(request.post_data_json) if request.url.endswith("/cut") else None)
    page.route("**/step?*", lambda route: held.append(route))
    page.keyboard.press("k")
    page.locator("body[aria-busy=true]").wait_for()
    click_patch(page)
    page.keyboard.press("Control+z")
    page.get_by_role("button", name="Clear").click()
    assert page.locator(".cuts li").count() == 1  # those of the picture that is still shown
    for route in held:
        route.continue_()
    page.unroute_all()
    page.locator("figcaption", has_text="first.png").wait_for()
    settled(page)
    assert page.locator(".cuts").is_hidden()
    click_patch(page)
    answered(page, 1)
    assert [len(question["cuts"]) for question in asked] == [1]
    page.keyboard.press("j")
    page.locator("figcaption", has_text="second.png").wait_for()
    settled(page)
    assert asked[0]["cuts"] == [{"kind": "patch", "token": token(PATCH)}]
    assert answered(page, 1) == second


def test_a_reply_that_comes_after_another_picture_was_chosen_stays_with_its_own(page, address):
    show(page, address, "Cut patches")
    drop_one(page, "second.png", OTHER)
    held = []
    page.route("**/cut", lambda route: held.append(route))
    click_patch(page)
    page.locator(".answered[aria-busy=true]").wait_for()
    page.keyboard.press("k")
    page.locator("figcaption", has_text="first.png").wait_for()
    settled(page)
    held[0].continue_()
    page.wait_for_timeout(300)
    assert page.locator(".cuts").is_hidden()
    page.unroute_all()
    page.keyboard.press("j")
    page.locator("figcaption", has_text="second.png").wait_for()
    answered(page, 1)
    assert "read_picture('second.png'" in page.locator(".asking pre").text_content()


def test_a_reload_and_a_link_keep_the_cuts_that_the_server_has(page, address):
    show(page, address, "Cut patches")
    click_patch(page)
    answered(page, 1)
    click_patch(page, SECOND)
    both = answered(page, 2)
    page.get_by_role("radio", name="after the cuts").click()
    page.get_by_role("heading", level=1).filter(has_text="with 2 cuts").wait_for()
    settled(page)
    link = page.url
    page.reload()
    assert answered(page, 2) == both
    page.evaluate("localStorage.clear()")
    page.goto("about:blank")
    page.goto(link)
    assert answered(page, 2) == both
    settled(page)
    assert page.url == link
    assert "with 2 cuts" in page.get_by_role("heading", level=1).inner_text()
    page.get_by_role("button", name="Undo").click()
    assert page.locator(".cuts").is_hidden()
    settled(page)
    assert "cut" not in page.get_by_role("heading", level=1).inner_text()


def test_a_reload_after_the_server_has_forgotten_the_cuts_says_so(page, address):
    show(page, address, "Look")
    for lost in (page.url.replace("step=0", "step=777"), None):
        if lost:
            page.goto("about:blank")
            page.goto(lost)
        else:
            stored = "localStorage['vit_attn.explore']"
            page.evaluate(f"{stored} = JSON.stringify({{...JSON.parse({stored}), step: 777}})")
            page.evaluate("history.replaceState(null, '', location.hash.replace('step=0', 'step=777'))")
            page.reload()
        page.get_by_text(
            "The link asks for cuts that this server does not have: the whole network is shown."
        ).wait_for()
        settled(page)
        assert "step=0" in page.url


def test_quick_clicks_end_in_the_last_list(page, address, cifar):
    show(page, address, "Cut patches")
    patches = [(row, 3) for row in range(6)]
    for patch in patches:
        click_patch(page, patch)
    found = answered(page, 6)
    assert found == pytest.approx(expected(cifar, knockout(cifar.network.net, others_to(*patches))), abs=1e-4)
    page.get_by_text("History").click()
    page.locator(".history .chance", has_text="…").first.wait_for(state="detached")


def test_the_python_lines_are_copied_and_a_refusal_is_said(page, address):
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    show(page, address, "Cut patches")
    click_patch(page)
    answered(page, 1)
    page.get_by_role("button", name="Copy the Python lines").click()
    page.get_by_role("button", name="Copied").wait_for()
    code = page.evaluate("navigator.clipboard.readText()")
    assert "knockout(net, cut_1)" in code
    assert "read_picture('first.png'" in code
    page.route(
        "**/cut", lambda route: route.fulfill(status=422, body="the network gives NaN", content_type="text/plain")
    )
    click_patch(page, SECOND)
    page.locator(".asking [role=alert]").wait_for()
    assert page.locator(".asking [role=alert]").inner_text() == "the network gives NaN"


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 800, 390])
def test_everyone_can_use_the_panel(page, address, width: int, theme: str):
    page.set_viewport_size({"width": width, "height": 844})
    page.emulate_media(color_scheme=theme)
    show(page, address, "Cut patches")
    click_patch(page)
    answered(page, 1)
    for name in ("Cut edge", "Cut head"):
        page.get_by_role("radio", name=name).click()
        found = page.evaluate(CHECKS.read_text())
        assert found == {"headings": 1, "unnamed": [], "small": [], "tiny": [], "faint": []}
        assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")

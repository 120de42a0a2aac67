"""Faults on the page: each is reported, and the view stays."""

import re
import shutil

import numpy as np
import pytest

from vit_attn.tb_plugin import metadata


@pytest.fixture(scope="module")
def logdir(tmp_path_factory, write_step, damage):
    folder = tmp_path_factory.mktemp("faults")
    for run in ("good", "damaged", "doomed"):
        for step in (0, 10):
            write_step(folder / run, step)
    damage(folder / "damaged")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metadata, "VERSION", 3)
        write_step(folder / "newer", 0)
    related = np.random.default_rng(0).random((1, 1025, 1025), np.float32)
    write_step(folder / "thousand", 0, (32, 32), 1, (24, 23), images=1, relevance=related)
    return folder


@pytest.fixture(scope="module")
def address(logdir, serve):
    return serve(logdir, run="thousand")


def marks(frame):
    return frame.locator("figure[data-name=Map] .marks")


@pytest.fixture
def tab(open_plugin, address):
    frame = open_plugin(address)
    frame.get_by_label("Run").locator("option", has_text="good").wait_for(state="attached")
    frame.get_by_label("Run").select_option("good")
    frame.locator("body[aria-busy=false]").wait_for()  # the run before it has as many steps: the text tells nothing
    frame.get_by_text("step 10 · 2/2").wait_for()
    return frame


def test_a_failing_reply_is_shown_with_its_status_and_can_be_tried_again(tab, page):
    page.route(re.compile("/maps"), lambda route: route.fulfill(status=500, body="the disk is on fire"))
    tab.get_by_role("radio", name=re.compile("^image 2")).click()
    tab.get_by_role("alert").get_by_text("500 · GET vit_attn/maps").wait_for()
    assert "the disk is on fire" in tab.get_by_role("alert").inner_text()
    page.unroute_all()
    tab.get_by_role("button", name="Try again").click()
    tab.get_by_role("alert").wait_for(state="hidden")
    assert marks(tab).is_visible()


def test_a_server_that_is_gone_is_said_so_and_the_picture_stays(tab, page):
    page.route(re.compile("/(maps|step|runs)"), lambda route: route.abort())
    tab.get_by_label("Training step").fill("0")
    tab.get_by_role("alert").get_by_text("is TensorBoard still running?").wait_for()
    assert marks(tab).is_visible()
    page.unroute_all()


def test_a_server_that_comes_back_is_asked_for_what_is_missing(tab, page):
    page.route(re.compile("/(maps|step|runs)"), lambda route: route.abort())
    tab.get_by_role("radio", name=re.compile("^image 2")).click()
    tab.get_by_role("alert").get_by_text("GET vit_attn/runs").wait_for(timeout=60_000)  # as the page looks for news
    assert tab.locator(".parts.outdated").count() == 1
    page.unroute_all()
    tab.get_by_role("alert").wait_for(state="hidden", timeout=60_000)
    assert tab.locator(".parts.outdated").count() == 0
    assert tab.get_by_role("radio", name=re.compile("^image 2")).get_attribute("aria-checked") == "true"


def test_a_corrupt_layer_is_named_and_other_images_are_shown(tab):
    tab.get_by_label("Run").select_option("damaged")
    tab.get_by_role("radio", name=re.compile("^image 2")).click()
    tab.get_by_role("alert").get_by_text("layer 2: corrupt maps: wrong checksum").wait_for()
    tab.get_by_role("radio", name=re.compile("^image 1")).click()
    tab.get_by_role("alert").wait_for(state="hidden")


def test_a_run_of_another_version_says_so(tab):
    assert tab.get_by_label("Run").locator("option", has_text="format version 3").count() == 1
    tab.get_by_label("Run").select_option("newer")
    tab.get_by_role("alert").get_by_text("format version 3; this version of vit_attn reads 2").wait_for()
    tab.get_by_label("Run").select_option("good")
    tab.get_by_role("alert").wait_for(state="hidden")


def test_a_thousand_patches_load_what_is_shown_alone_and_say_so(tab):
    tab.get_by_label("Run").select_option("thousand")
    tab.get_by_text("Relevance only is loaded; all layers are 51").wait_for()
    tab.get_by_text("Class-specific: relevance").wait_for()
    tab.get_by_text("This row sums to 5").wait_for()
    tab.get_by_role("radio", name="Raw").click()
    tab.get_by_text("This row sums to 100").wait_for()
    tab.get_by_text("One layer of 2 is loaded; all layers are 51").wait_for()
    tab.get_by_role("radio", name="Rollout").click()
    tab.get_by_text("Rollout needs all layers, and not all are loaded.").wait_for()
    tab.get_by_role("radio", name="Raw").click()
    assert tab.locator(".small").count() == 23
    tab.get_by_label("Layer", exact=True).select_option("0")
    tab.locator(".small").nth(23).wait_for()
    tab.get_by_role("button", name="Load all 2 layers").click()
    tab.locator(".small").nth(46).wait_for()
    tab.get_by_role("radio", name="Rollout").click()
    tab.get_by_text("This row sums to 100").wait_for()
    tab.get_by_text("The rollout of all 1025 tokens at once is not computed").wait_for()


def test_a_run_that_is_deleted_while_it_is_looked_at_stays_in_view(tab, page, logdir):
    pytest.importorskip("tensorboard_data_server", reason="the Python reader never forgets a run")
    tab.get_by_label("Run").select_option("doomed")
    tab.locator(".sheet").wait_for()
    shutil.rmtree(logdir / "doomed")
    tab.get_by_role("alert").get_by_text("Run doomed is no longer in the log directory").wait_for(timeout=60_000)
    assert marks(tab).is_visible()
    tab.get_by_label("Run").select_option("good")
    tab.get_by_role("alert").wait_for(state="hidden")


def test_an_empty_folder_and_then_a_log_being_written(page, serve, tmp_path, write_step):
    address = serve(tmp_path)
    page.goto(f"{address}/data/plugin_entry.html?name=vit_attn")
    page.get_by_text("No attention was logged yet.").wait_for()
    write_step(tmp_path, 0)
    page.get_by_text("step 0 · 1/1").wait_for(timeout=60_000)
    page.get_by_label("Training step").focus()
    write_step(tmp_path, 5)
    page.get_by_text("step 0 · 1/2").wait_for(timeout=60_000)  # nothing jumps
    page.get_by_label("follow").check()
    page.get_by_text("step 5 · 2/2").wait_for()
    write_step(tmp_path, 9)
    page.get_by_text("step 9 · 3/3").wait_for(timeout=60_000)

"""What a session keeps, drops and computes again, and networks of every kind."""

from dataclasses import replace

import numpy as np
import pytest
import timm
import torch

from tests.explore.conftest import Page, encoded
from tests.networks import FAMILIES, built
from vit_attn.attention_maps import ablate, record
from vit_attn.checkpoints.model_card import ModelCard
from vit_attn.errors import UserError
from vit_attn.explore import session as module
from vit_attn.explore.cuts import HeadCut, PatchCut
from vit_attn.explore.pictures import MAX_PICTURES, Pictures
from vit_attn.explore.rows import RowQuestion, compute_row
from vit_attn.explore.session import Place
from vit_attn.inference.network import TrainedNetwork

CARD = ModelCard("small", {}, None, (3, 32, 32), (0.5,) * 3, (0.25,) * 3)


class Small(TrainedNetwork):
    """Network of tests whose number of classes is that of its output."""

    @property
    def num_classes(self) -> int:
        return int(getattr(getattr(self.net, "config", self.net), "num_labels", getattr(self.net, "num_classes", 5)))


def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Kinds of forwards from now on."""
    forwards: list[str] = []
    for name in ("look_at", "predict"):
        compute = getattr(module, name)
        monkeypatch.setattr(
            module, name, lambda *args, name=name, compute=compute: forwards.append(name) or compute(*args)
        )
    return forwards


def test_a_view_and_its_rows_take_one_forward(page: Page, monkeypatch: pytest.MonkeyPatch):
    forwards, place = counted(monkeypatch), {"run": "coins", "step": 0, "image": 0}
    for path in ("/step", "/maps", "/prediction", "/image", "/step"):
        assert page.get(path, **place).status_code == 200
    for method in ("rollout", "relevance", "gradient_rollout"):
        for query in ("pool", 3):
            assert page.get("/row", **place, method=method, query=query).status_code == 200
    assert forwards == ["look_at"]


def test_one_picture_of_a_network_has_a_graph_and_another_is_recorded_again(page: Page, monkeypatch):
    page.post("/picture", encoded(seed=1))
    forwards, session = counted(monkeypatch), page.session
    first, second = (session.look(Place("coins", 0, image)) for image in (0, 1))
    assert (first.recording.gradients, second.recording.gradients) == (False, True)
    assert all(call.output is None for _, call in first.recording.forwards[0].calls)
    before = compute_row(session, Place("coins", 0, 0), RowQuestion("rollout", 5))
    assert forwards == ["look_at"] * 2  # rollout needs no graph
    compute_row(session, Place("coins", 0, 0), RowQuestion("relevance", 5))
    assert forwards == ["look_at"] * 3
    np.testing.assert_array_equal(compute_row(session, Place("coins", 0, 0), RowQuestion("rollout", 5)), before)


def test_what_is_kept_stays_within_a_budget_of_bytes(page: Page, monkeypatch: pytest.MonkeyPatch):
    session = page.session
    size = session.look(Place("coins", 0, 0)).size
    session._looks.budget = 3 * size
    for seed in range(1, 6):
        page.post("/picture", encoded(seed=seed))
        session.look(Place("coins", 0, seed))
    assert session._looks.size <= 3 * size
    kept = [image for image in range(6) if session._looks.get(Place("coins", 0, image))]
    assert kept == [3, 4, 5]


def test_the_bytes_of_a_look_are_those_of_its_vectors_and_blobs(page: Page):
    page.get("/maps", run="coins", step=0, image=0)
    look = page.session.look(Place("coins", 0, 0))
    vectors = len(look.recording) * 3 * 65 * 64 * 4  # queries, keys and values, which share their memory
    blobs = sum(len(blob) for blob in look.encoded.images[0])
    assert look.size == vectors + 3 * 32 * 32 * 4 + blobs


def test_parameters_are_frozen_and_the_network_stays_as_it_is(page: Page, coins):
    state = {name: tensor.clone() for name, tensor in coins.net.state_dict().items()}
    page.get("/row", run="coins", step=0, image=0, method="legrad")
    assert not any(parameter.requires_grad for parameter in coins.net.parameters())
    assert not coins.net.training
    assert all(torch.equal(tensor, state[name]) for name, tensor in coins.net.state_dict().items())


def test_lists_of_cuts_are_steps_and_equal_lists_the_same(page: Page):
    session = page.session
    one, other = PatchCut(1), HeadCut(0, 1)
    steps = [session.register("coins", cuts) for cuts in [(one,), (one, other), (one,), ()]]
    assert steps == [1, 2, 1, 0]
    assert session.steps("coins") == [0, 1, 2]
    with pytest.raises(UserError, match="has steps 0 to 2, got 3"):
        session.look(Place("coins", 3, 0))


def test_a_step_is_the_network_under_its_cuts(page: Page, coins):
    session, plain = page.session, Place("coins", 0, 0)
    place = plain._replace(step=session.register("coins", (HeadCut(1, 0), HeadCut(1, 2))))
    with torch.no_grad(), ablate(coins.net, {1: [0, 2]}):
        expected = coins.net(session.images("coins", 0))
    torch.testing.assert_close(session.logits(place), expected)
    assert not torch.allclose(session.logits(plain), expected)
    assert (session.look(place).recording[1].weights()[0, [0, 2]] == 0).all()
    for method in ("rollout", "legrad", "relevance"):  # LeGrad runs the network again
        rows = [compute_row(session, each, RowQuestion(method, target=1)) for each in (plain, place)]
        assert not np.allclose(*rows, rtol=1e-3)
    index = page.json("/step", run="coins", step=place.step, image=0)
    assert index["cuts"] == 2


def test_two_networks_show_the_same_picture_each_in_its_own_size(coins, session_of):
    net = timm.create_model("vit_tiny_patch16_224", img_size=64, num_classes=3).eval()
    other = TrainedNetwork(net, replace(CARD, input_size=(3, 64, 64)))
    page = Page(session_of({"coins": coins, "other": other}))
    page.post("/picture", encoded())
    one, two = (page.json("/step", run=run, step=0, image=0) for run in ("coins", "other"))
    assert one["images"][0]["picture"] == two["images"][0]["picture"]
    assert [each["images"][0]["size"] for each in (one, two)] == [[32, 32], [64, 64]]
    looks = [page.session.look(Place(run, 0, 0)) for run in ("coins", "other")]
    assert [look.recording.gradients for look in looks] == [True, True]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_explored(family: str, session_of):
    network = Small(built(family), CARD)
    page = Page(session_of({"net": network}))
    page.post("/picture", encoded())
    place = {"run": "net", "step": 0, "image": 0}
    index = page.json("/step", **place)
    tokens = index["grid"][0] * index["grid"][1] + len(index["prefix"])
    assert len(index["pooled"]) == tokens
    assert page.get("/maps", **place).status_code == 200
    for method in index["methods"]:
        reply = page.get("/row", **place, method=method["name"], target=2)
        assert (reply.status_code, len(reply.data)) == (200, 4 * tokens), (method["name"], reply.text)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_a_network_of_another_precision_is_explored(dtype: torch.dtype, session_of):
    page = Page(session_of({"net": Small(built("timm vit").to(dtype), CARD)}))
    page.post("/picture", encoded())
    for path in ("/step", "/maps", "/prediction"):
        assert page.get(path, run="net", step=0, image=0).status_code == 200
    for method in ("relevance", "legrad", "rollout"):
        assert len(page.get("/row", run="net", step=0, image=0, method=method).data) == 4 * 17


def test_a_network_of_grey_pictures_is_explored(session_of):
    net = timm.create_model("vit_tiny_patch16_224", img_size=32, in_chans=1, num_classes=3).eval()
    page = Page(
        session_of({"grey": TrainedNetwork(net, replace(CARD, input_size=(1, 32, 32), mean=(0.5,), std=(0.2,)))})
    )
    page.post("/picture", encoded())
    assert page.json("/step", run="grey", step=0, image=0)["images"][0]["size"] == [32, 32]
    assert page.get("/image", run="grey", step=0, image=0).data[:4] == b"\x89PNG"


def test_a_network_that_gives_nan_answers_in_a_sentence(session_of):
    nets = {"head": built("timm vit"), "attention": built("timm vit")}
    for parameter in (nets["head"].head.bias, nets["attention"].blocks[1].attn.qkv.weight):
        with torch.no_grad():
            parameter.fill_(torch.nan)
    page = Page(session_of({name: Small(net, CARD) for name, net in nets.items()}))
    page.post("/picture", encoded())
    for name in nets:
        for path in ("/step", "/prediction", "/maps"):
            reply = page.get(path, run=name, step=0, image=0)
            assert (reply.status_code, "NaN or infinity" in reply.text) == (422, True)


def test_layers_of_unequally_many_heads_are_shown_without_their_measures(session_of):
    net = built("timm vit")
    attention = net.blocks[1].attn
    attention.num_heads, attention.head_dim = 2, 24
    attention.scale = 24**-0.5
    with torch.no_grad(), record(net) as recording:
        net(torch.zeros(1, 3, 32, 32))
    assert recording[1].calls[0].q.shape[1] == 2
    page = Page(session_of({"net": Small(net, CARD)}))
    page.post("/picture", encoded())
    index = page.json("/step", run="net", step=0, image=0)
    assert index["heads"] == [4, 2, 4]
    assert "head_measures" not in index


def test_files_are_read_when_they_are_looked_at(coins, session_of, tmp_path):
    good, bad = tmp_path / "good.png", tmp_path / "bad.png"
    good.write_bytes(encoded())
    bad.write_bytes(b"no picture")
    page = Page(session_of({"coins": coins}, [good, bad, tmp_path / "gone.png"]))
    assert page.json("/step", run="coins", step=0, image=0)["images"][1]["top"] == []
    assert not page.session.pictures[1].fitted
    assert not page.session.pictures[1].problem
    for image, words in ((1, "bad.png cannot be read as an image"), (2, "gone.png cannot be read")):
        reply = page.get("/step", run="coins", step=0, image=image)
        assert (reply.status_code, words in reply.text) == (422, True)
    assert "cannot be read" in page.json("/step", run="coins", step=0, image=0)["images"][2]["problem"]
    assert page.json("/pictures")["pictures"][1]["problem"].startswith("bad.png")


def test_there_is_a_most_of_pictures(coins, tmp_path):
    with pytest.raises(UserError, match=f"at most, got {MAX_PICTURES + 1}"):
        Pictures({"coins": coins}, [tmp_path / "a.png"] * (MAX_PICTURES + 1))
    pictures = Pictures({"coins": coins}, [tmp_path / "a.png"] * MAX_PICTURES)
    with pytest.raises(UserError, match="keeps 256 pictures at most"):
        pictures.add(encoded(), "one too many")

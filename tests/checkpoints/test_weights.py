import functools
import http.server
import io
import pickle
import threading
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
from torch import nn
from torch.testing import assert_close

from vit_attn.checkpoints.weights import load_weights, read_weights, save_weights
from vit_attn.errors import UserError
from vit_attn.model import VisionTransformer, downloads
from vit_attn.model.build import build_net
from vit_attn.model.zoo import ENTRIES
from vit_attn.task import Classifier

SIZES = {"img_size": 32, "patch_size": 8, "num_classes": 10, "embed_dim": 48, "depth": 2, "num_heads": 4}
FAMILIES = [
    "vit_attn_tiny_patch16_224",
    "vit_attn_deit_tiny_patch16_224",
    "vit_attn_deit3_small_patch16_224",
    "vit_attn_dino_small_patch16_224",
    "vit_attn_dinov2_small_patch14_reg4",
]


def shaken(net: nn.Module) -> nn.Module:
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return net.eval()


@pytest.mark.parametrize("name", FAMILIES)
def test_each_family_goes_to_timm_and_back_through_files(name: str, tmp_path: Path):
    """Two blocks of each, as timm itself builds them."""
    arch = ENTRIES[name].weights.partition(".")[0]
    options = {"depth": 2, "num_classes": 7, "img_size": 8 * ENTRIES[name].options["patch_size"]}
    ours, theirs = timm.create_model(name, **options), shaken(timm.create_model(arch, **options))
    images = torch.randn(2, 3, options["img_size"], options["img_size"])

    safetensors.torch.save_file(theirs.state_dict(), tmp_path / "theirs.safetensors")
    assert load_weights(ours.eval(), tmp_path / "theirs.safetensors") == []
    assert_close(ours(images), theirs(images), rtol=0, atol=1e-5)

    save_weights(shaken(ours), tmp_path / "ours.safetensors")
    again = timm.create_model(arch, **options, checkpoint_path=str(tmp_path / "ours.safetensors")).eval()
    assert_close(again(images), ours(images), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", [name for name, entry in ENTRIES.items() if entry.weights])
def test_each_named_size_has_the_names_and_shapes_of_its_timm_model(name: str):
    arch = ENTRIES[name].weights.partition(".")[0]
    with torch.device("meta"):
        ours, theirs = VisionTransformer(**ENTRIES[name].options), timm.create_model(arch, num_classes=1000)
    shapes = [{key: tuple(tensor.shape) for key, tensor in net.state_dict().items()} for net in (ours, theirs)]
    assert shapes[0] == shapes[1]
    cfg = timm.get_pretrained_cfg(name)
    assert cfg.hf_hub_id == timm.get_pretrained_cfg(ENTRIES[name].weights).hf_hub_id


def test_pretrained_loads_timms_weights_from_the_hub_into_our_blocks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    theirs = shaken(timm.create_model("vit_tiny_patch16_224"))
    asked = []

    def hub(model_id, *_args, **_options):
        asked.append(model_id)
        return theirs.state_dict()

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", hub)
    ours = timm.create_model("vit_attn_tiny_patch16_224", pretrained=True).eval()
    images = torch.randn(1, 3, 224, 224)
    assert asked == ["timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k"]
    assert_close(ours(images), theirs(images), rtol=0, atol=1e-5)
    small = timm.create_model("vit_attn_tiny_patch16_224", pretrained=True, img_size=64, patch_size=8, num_classes=5)
    assert small(torch.randn(1, 3, 64, 64)).shape == (1, 5)


def test_our_checkpoints_load_too(tmp_path: Path):
    net = shaken(VisionTransformer(**SIZES))
    state = {f"net.{name}": tensor for name, tensor in net.state_dict().items()} | {"val_accuracy.tp": torch.zeros(1)}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "a.ckpt")
    other = VisionTransformer(**SIZES).eval()
    assert load_weights(other, tmp_path / "a.ckpt") == []
    images = torch.randn(1, 3, 32, 32)
    assert torch.equal(other(images), net(images))


def test_other_sizes_are_resampled_and_another_head_is_new_and_both_are_said(tmp_path: Path):
    net = shaken(VisionTransformer(**SIZES))
    save_weights(net, tmp_path / "a.safetensors")
    other = VisionTransformer(**(SIZES | {"img_size": 48, "patch_size": 4, "num_classes": 3}))
    head = other.head.weight.clone()
    changes = load_weights(other, tmp_path / "a.safetensors")
    assert [change.split()[0] for change in changes] == ["patch_embed.proj.weight", "pos_embed", "the"]
    assert "the head of 10 classes was left out; the new one of 3 is untrained" in changes[2]
    assert torch.equal(other.head.weight, head)
    assert torch.equal(other.blocks[1].attn.qkv.weight, net.blocks[1].attn.qkv.weight)
    assert torch.equal(other.pos_embed[:, 0], net.pos_embed[:, 0])
    features = VisionTransformer(**(SIZES | {"num_classes": 0}))
    assert load_weights(features, tmp_path / "a.safetensors") == ["the head of 10 classes was left out"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 3}, r"12 missing \(blocks\.2\.attn\.proj\.bias, .* …\)"),
        ({"depth": 1}, r"12 unknown \(blocks\.1\."),
        ({"embed_dim": 64}, r"cls_token is \(1, 1, 48\), not \(1, 1, 64\)"),
        ({"reg_tokens": 2}, "positions of .* cannot be resampled"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(options, message, tmp_path: Path):
    save_weights(VisionTransformer(**SIZES), tmp_path / "a.safetensors")
    with pytest.raises(UserError, match=message):
        load_weights(VisionTransformer(**(SIZES | options)), tmp_path / "a.safetensors")


class Hostile:
    """A pickle that would write a file when it is read."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_pickle_that_would_run_code_is_refused_and_nothing_ran(tmp_path: Path):
    torch.save({"state_dict": Hostile(tmp_path / "ran")}, tmp_path / "hostile.pt")
    (tmp_path / "bare.pt").write_bytes(pickle.dumps(Hostile(tmp_path / "ran")))
    for name in ("hostile.pt", "bare.pt"):
        with pytest.raises(UserError, match="no weights that can be read without running code"):
            read_weights(tmp_path / name)
    assert not (tmp_path / "ran").exists()


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A folder, and the address under which it is served."""
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_weights_come_from_addresses_as_safely_as_from_files(served, tmp_path: Path):
    folder, address = served
    net, other = shaken(VisionTransformer(**SIZES)), VisionTransformer(**SIZES).eval()
    for name in ("one", "two"):
        (folder / name).mkdir()
    save_weights(net, folder / "one" / "a.safetensors")
    torch.save({"state_dict": Hostile(tmp_path / "ran")}, folder / "two" / "a.pt")
    assert load_weights(other, f"{address}/one/a.safetensors?download=true") == []
    (folder / "one" / "a.safetensors").unlink()
    assert load_weights(other, f"{address}/one/a.safetensors?download=true") == []  # kept
    images = torch.randn(1, 3, 32, 32)
    assert torch.equal(other(images), net(images))
    with pytest.raises(UserError, match="no weights that can be read without running code"):
        read_weights(f"{address}/two/a.pt")
    assert not (tmp_path / "ran").exists()
    with pytest.raises(UserError, match=r"weights could not be downloaded from .*/none.pt: .*404"):
        read_weights(f"{address}/none.pt")
    assert [path.name for path in (tmp_path / "hub").rglob("*") if path.is_file()] == ["a.safetensors"]


def test_a_refused_download_does_not_stay(served, tmp_path: Path):
    folder, address = served
    net = shaken(VisionTransformer(**SIZES))
    (folder / "a.safetensors").write_text("<html>come back later</html>")
    (folder / "a.pt").write_bytes(pickle.dumps(Hostile(tmp_path / "ran")))
    for name in ("a.safetensors", "a.pt"):
        with pytest.raises(UserError, match="holds no weights that can be read"):
            read_weights(f"{address}/{name}")
    assert not [path for path in (tmp_path / "hub").rglob("*") if path.is_file()]
    save_weights(net, folder / "a.safetensors")
    assert read_weights(f"{address}/a.safetensors").keys() == net.state_dict().keys()


def test_half_a_download_is_none(served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder, address = served
    save_weights(VisionTransformer(**SIZES), folder / "a.safetensors")
    copy = downloads.shutil.copyfileobj

    def breaks_off(source, target, *length):  # the server, which is in this process too, gives no length
        copy(io.BytesIO(source.read(1000)) if length else source, target, *length)

    monkeypatch.setattr(downloads.shutil, "copyfileobj", breaks_off)
    with pytest.raises(UserError, match=r"could not be downloaded from .*: it ended after 1,000 of \d"):
        read_weights(f"{address}/a.safetensors")
    assert not [path for path in (tmp_path / "hub").rglob("*") if path.is_file()]


def test_files_without_weights_are_refused(tmp_path: Path):
    torch.save({"epoch": 3}, tmp_path / "empty.pt")
    torch.save(torch.zeros(3), tmp_path / "bare.pt")
    (tmp_path / "a.safetensors").write_bytes(b"x" * 40)
    for name, message in (
        ("none.pt", "weights not found"),
        ("empty.pt", "holds no weights"),
        ("bare.pt", "holds no weights"),
        ("a.safetensors", "can be"),
    ):
        with pytest.raises(UserError, match=message):
            read_weights(tmp_path / name)


def test_weights_that_cannot_be_written_are_an_error_of_the_system(tmp_path: Path):
    with pytest.raises(OSError, match=r"none/net\.safetensors could not be written: .*No such file"):
        save_weights(nn.Linear(1, 1), tmp_path / "none" / "net.safetensors")


@pytest.mark.parametrize("size", [(16, 16), (24, 16), (32, 48), (16, 24)])
def test_positions_of_wide_images_are_resampled_by_their_own_grid(size: tuple[int, int], tmp_path: Path):
    arch, options = "vit_attn_tiny_patch4_32", {"depth": 1, "embed_dim": 16, "num_heads": 1}
    wide, file = Classifier(arch, options, num_classes=2, img_size=(16, 24)), tmp_path / "wide.ckpt"
    with torch.no_grad():
        wide.net.pos_embed[0, -24:] = torch.arange(4.0).repeat_interleave(6)[:, None]  # the row in a grid of 4 by 6
    torch.save({"hyper_parameters": dict(wide.hparams), "state_dict": wide.state_dict()}, file)
    net = build_net(arch, 2, size, 3, options)
    load_weights(net, file)
    rows, cols = size[0] // 4, size[1] // 4
    grid = net.pos_embed[0, -rows * cols :, 0].detach().unflatten(0, (rows, cols))
    assert_close(grid, grid[:, :1].expand_as(grid), rtol=0, atol=1e-4)
    assert bool((grid[:, 0].diff() > 0).all())

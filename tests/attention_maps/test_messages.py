"""What cannot be watched says in one line what to do instead; what only looks unusual is watched."""

import copy

import lightning as L
import pytest
import timm
import torch
from torch import nn
from torch.testing import assert_close
from transformers import ViTConfig, ViTForImageClassification

from tests.networks import HUGGING_FACE, IMAGES, built, of_timm
from vit_attn.attention_maps import ablate, edges, knockout, record, relevance
from vit_attn.attention_maps.recording.attention_modules import attention_modules
from vit_attn.errors import UserError

CUT = edges(17, [0], [1])
WATCHING = {
    "record": record,
    "knockout": lambda net: knockout(net, CUT),
    "ablate": lambda net: ablate(net, {0: [1]}),
}
EACH_WAY = pytest.mark.parametrize("watching", WATCHING.values(), ids=WATCHING.keys())


class Task(L.LightningModule):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, images):
        return self.net(images)


class Compiled(nn.Module):
    """A wrapper of somebody's."""

    def __init__(self, net):
        super().__init__()
        self.inner = nn.ModuleDict({"model": net})

    def forward(self, images):
        return self.inner["model"](images)


@EACH_WAY
@pytest.mark.parametrize(
    ("wrapper", "path"), [(Task, "net"), (nn.DataParallel, "module"), (Compiled, "inner.model"), (nn.Sequential, "0")]
)
def test_a_wrapper_says_where_the_network_is_and_may_be_called(watching, wrapper, path):
    net = built("timm vit")
    whole = wrapper(net)
    with pytest.raises(UserError, match=rf"{wrapper.__name__} only wraps the network: use its \.{path} instead"):
        with watching(whole):
            pass
    with torch.no_grad(), watching(whole.get_submodule(path)) as seen:
        whole(IMAGES)
    assert seen is None or len(seen) == 3


def test_a_compiled_wrapper_or_what_it_wraps_is_recorded_and_cut():
    net = built("timm vit")
    compiled = torch.compile(net, backend="eager")
    with torch.no_grad(), record(net) as plain, ablate(net, {0: [1]}):
        net(IMAGES)
    for watched in (net, compiled):
        with torch.no_grad(), record(watched) as seen, ablate(watched, {0: [1]}):
            compiled(IMAGES)
        assert_close(seen[2].weights(), plain[2].weights())


@EACH_WAY
def test_scripted_networks_run_unseen(watching):
    with pytest.warns((DeprecationWarning, FutureWarning), match="deprecated"):  # torch 2.11, and newer
        scripted = torch.jit.script(nn.Sequential(nn.Linear(2, 2)))
    with pytest.raises(UserError, match=r"scripted network .* use the network that it was scripted from"):
        with watching(scripted):
            pass


@EACH_WAY
def test_attention_that_is_not_seen_says_how_to_load_it(watching):
    net = ViTForImageClassification._from_config(ViTConfig(**HUGGING_FACE), attn_implementation="eager").eval()
    next(iter(attention_modules(net))).forward = lambda x, *_, **__: (x, None)  # pyrefly: ignore[bad-assignment]
    with torch.no_grad(), pytest.raises(UserError, match=r'load .* attn_implementation="sdpa", it has .eager.'):
        with watching(net):
            net(IMAGES)
    net = timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=8, depth=26, embed_dim=24, num_heads=2)
    for block in net.eval().blocks:
        block.attn.fused_attn, block.attn.forward = False, lambda x, *_, **__: x
    with torch.no_grad(), pytest.raises(UserError, match="set fused_attn = True") as error, watching(net):
        net(IMAGES)
    assert len(str(error.value)) < 400


@EACH_WAY
@pytest.mark.parametrize("part", ["forward", "forward_features"])
def test_only_the_network_itself_is_called(watching, part: str):
    net = built("timm vit")
    with (
        torch.no_grad(),
        pytest.raises(UserError, match=r"blocks\.0\.attn of VisionTransformer .* not in net\(images\)"),
    ):
        with watching(net):
            getattr(net, part)(IMAGES)
    outer = built("hugging face vit")
    with torch.no_grad(), pytest.raises(UserError, match=r"call the network itself, not its forward"):
        with watching(outer):
            outer.vit(IMAGES)


@EACH_WAY
def test_a_copy_that_is_called_instead_is_not_the_network(watching):
    net = built("timm vit")

    def called() -> int:
        with torch.no_grad(), watching(net) as seen:
            copy.deepcopy(net)(IMAGES)
        return len(seen)

    with pytest.raises(UserError, match=r"nothing was (cut|recorded): call the network itself"):
        called()


@EACH_WAY
def test_inputs_by_name_are_found_and_dictionaries_are_refused(watching):
    net = built("hugging face vit")
    with torch.no_grad(), watching(net) as seen:
        net(labels=torch.zeros(3, dtype=torch.int64), pixel_values=IMAGES)
    assert seen is None or seen.grid_size == (4, 4)
    with pytest.raises(UserError, match=r"called with a tensor of images, got dict: unpack it, net\(\*\*inputs\)"):
        with watching(net):
            net({"pixel_values": IMAGES})


@EACH_WAY
@pytest.mark.parametrize(
    ("images", "message"),
    [
        ((IMAGES * 50).to(torch.uint8), "images must be normalised floats, got torch.uint8: divide by 255"),
        (torch.zeros(2, 1, 32, 32), r"takes images of 3 channels, got \(2, 1, 32, 32\)"),
        (IMAGES.double(), r"is in torch.float32 on cpu, the images are in torch.float64 on cpu: move them"),
        (IMAGES[0], r"got \(3, 32, 32\): add an axis, images\[None\]"),
    ],
)
def test_a_forward_that_fails_by_its_images_says_what_they_should_be(watching, images, message):
    net = built("ours")
    with pytest.raises(UserError, match=message), watching(net):
        net(images)


def test_gradient_checkpointing_is_recorded_and_not_cut():
    net = built("timm vit")
    with record(net, gradients=True) as plain:
        net(IMAGES)
    net.set_grad_checkpointing()
    with record(net, gradients=True) as seen:
        net(IMAGES)
    assert torch.equal(relevance(seen), relevance(plain))
    for watching in (WATCHING["knockout"], WATCHING["ablate"]):
        with pytest.raises(UserError, match=r"gradient checkpointing .*set_grad_checkpointing\(False\)"):
            with watching(net):
                net(IMAGES)
        with torch.no_grad(), watching(net):
            net(IMAGES)


def test_an_error_in_a_checkpointed_layer_leaves_later_graphs_alone():
    net = built("timm vit")
    net.set_grad_checkpointing()
    net.requires_grad_(False)
    with pytest.raises(UserError, match="gradient checkpointing of frozen layers") as error:
        with record(net, gradients=True):
            net(IMAGES)
    one = torch.ones(1, requires_grad=True)
    one.exp().sum().backward()  # the exponential was saved, and is not computed again
    assert error.value.__traceback__ is not None  # kept until here


def test_layers_that_run_without_gradients_have_none_to_record():
    net = built("timm vit")
    forward = net.blocks[0].forward
    net.blocks[0].forward = torch.no_grad()(forward)
    with pytest.raises(UserError, match=r"blocks\.0\.attn runs without gradients"), record(net, gradients=True):
        net(IMAGES)


def test_a_target_that_no_longer_has_a_graph_says_so_without_torchs_advice():
    net = built("ours")
    with record(net, gradients=True) as seen:
        net(IMAGES).sum().backward()
    with pytest.raises(UserError, match="before backward") as error:
        relevance(seen, 1)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


def test_a_target_that_does_not_depend_on_a_layer_has_no_gradient_by_it():
    net, early = built("timm vit"), []
    net.blocks[1].register_forward_hook(lambda _module, _inputs, output: early.append(output))
    with record(net, gradients=True) as seen:
        net(IMAGES)
    by_layer = seen.output_gradients(lambda _: early[0][:, 0].sum(dim=-1))
    assert [bool(each[0].any()) for each in by_layer] == [True, True, False]


@pytest.mark.filterwarnings("ignore:.*quantiz.*")
def test_quantised_networks_are_recorded():
    net = torch.ao.quantization.quantize_dynamic(built("timm vit"), {nn.Linear})
    outputs = []
    net.blocks[0].attn.norm.register_forward_pre_hook(lambda _module, inputs: outputs.append(inputs[0]))
    with torch.no_grad(), record(net) as seen:
        net(IMAGES)
    (call,) = seen[0].calls
    assert_close(call.weights() @ call.v, outputs[0].unflatten(-1, (4, 12)).transpose(1, 2))


def test_a_network_on_the_meta_device_holds_nothing_to_record():
    with torch.device("meta"):
        net = of_timm("vit_tiny_patch16_224")().eval()
    with pytest.raises(UserError, match="is on the meta device, which holds no weights"), record(net):
        net(IMAGES)

"""docs/methods.md says which networks are recorded, and a part of them is checked here as its script checks all."""

import re
from pathlib import Path
from types import ModuleType

import pytest

from vit_attn.attention_maps.recording import hugging_face
from vit_attn.attention_maps.recording.attention_call import AttentionCall

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs/methods.md").read_text(encoding="utf-8")

RECORDED = {
    "timm vision_transformer vit_tiny_patch16_224": "CLS",
    "timm vision_transformer vit_tiny_patch16_224 (prr, with CLS)": "prr token",
    "timm vision_transformer vit_tiny_patch16_224 (avgmax, with CLS)": "no default query",
    "timm deit deit_tiny_distilled_patch16_224": "all prefix tokens",
    "timm beit beit_base_patch16_224": "mean of patches",
    "timm eva vit_pe_core_tiny_patch16_384": "pool by attention",
    "timm naflexvit naflexvit_base_patch16_gap": "mean of patches",
    "torchvision vision_transformer VisionTransformer (patch 16)": "CLS",
    "transformers aimv2 Aimv2VisionModel": "pool by attention",
    "transformers beit BeitForImageClassification": "mean of patches",
    "transformers beit BeitForImageClassification (use_mean_pooling=False)": "CLS",
    "transformers clip CLIPForImageClassification": "mean of patches",
    "transformers data2vec Data2VecVisionForImageClassification": "mean of patches",
    "transformers deit DeiTForImageClassification": "CLS",
    "transformers deit DeiTForImageClassificationWithTeacher": "all prefix tokens",
    "transformers deit DeiTModel (no pooler)": "no default query",
    "transformers dinov2 Dinov2ForImageClassification": "CLS, and mean of patches",
    "transformers dinov2_with_registers Dinov2WithRegistersForImageClassification": "CLS, and mean of patches",
    "transformers ijepa IJepaForImageClassification": "mean of patches",
    "transformers pixio PixioModel": "all prefix tokens",
    "transformers siglip SiglipForImageClassification": "mean of patches",
    "transformers siglip SiglipVisionModel": "pool by attention",
    "transformers vit ViTForImageClassification": "CLS",
    "transformers yolos YolosModel": "CLS",
}
REFUSED = (
    "timm vision_transformer vit_dwee_patch16_reg1_gap_256",
    "transformers vit_mae ViTMAEModel",
    "transformers videomae VideoMAEModel",
    "transformers clip CLIPModel",
)


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import check_families  # pyrefly: ignore[missing-import]

    return check_families


def finding_of(script: ModuleType, name: str):
    listed = {f"{each.package} {each.family} {each.name}": each for each in script.candidates()}
    return script.check(listed[name])


@pytest.mark.parametrize("name", RECORDED)
def test_the_query_of_each_family_is_what_it_reads(script: ModuleType, name: str):
    finding = finding_of(script, name)
    assert (finding.result, finding.pool) == ("recorded", RECORDED[name]), finding.says
    _, family, network = name.split(" ", 2)
    listed = [
        line for line in TEXT.splitlines() if f" {family} " in line and f"| recorded | {RECORDED[name]} |" in line
    ]
    assert any(network in line or re.search(r"\d+: ", line) for line in listed)


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_so_in_the_document(script: ModuleType, name: str):
    finding = finding_of(script, name)
    assert finding.result == "refused"
    assert any(name.split(" ")[2] in line and "refused: " in line for line in TEXT.splitlines())


def test_every_family_of_the_script_is_in_the_document(script: ModuleType):
    table = TEXT.partition(script.BEGIN)[2].partition(script.END)[0]
    missing = {each.family for each in script.candidates() if each.family not in table}
    assert not missing


def test_nothing_in_the_document_is_wrong(script: ModuleType):
    table = TEXT.partition(script.BEGIN)[2].partition(script.END)[0]
    assert "| wrong" not in table
    for error in re.findall(r"\| (\de-\d\d) \| (?:\de-\d\d )?\|$", table, re.MULTILINE):
        assert float(error) <= 1e-5


def test_a_query_that_is_not_what_is_read_fails_the_script(script: ModuleType, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(hugging_face.POOLS, "BeitForImageClassification", "token")
    finding = finding_of(script, "transformers beit BeitForImageClassification")
    assert (finding.result, "without a graph" in finding.says) == ("wrong", True)


def test_weights_that_are_off_fail_the_script(script: ModuleType, monkeypatch: pytest.MonkeyPatch):
    right = AttentionCall.weights
    monkeypatch.setattr(AttentionCall, "weights", lambda call: right(call) * (1 + 1e-4))
    finding = finding_of(script, "transformers vit ViTForImageClassification")
    assert finding.result == "wrong"
    assert "a recorded weight is off by" in finding.says


def test_tokens_in_another_order_fail_the_script(script: ModuleType, monkeypatch: pytest.MonkeyPatch):
    import transformers

    plain = transformers.models.vit.modeling_vit.ViTPatchEmbeddings.forward

    def shuffled(self, *args, **kwargs):
        return plain(self, *args, **kwargs).flip(1)

    monkeypatch.setattr(transformers.models.vit.modeling_vit.ViTPatchEmbeddings, "forward", shuffled)
    finding = finding_of(script, "transformers vit ViTForImageClassification")
    assert (finding.result, finding.says) == ("wrong", "patch 0 of the image is token 15 of the patches")

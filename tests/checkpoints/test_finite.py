import pytest
import torch

from vit_attn.checkpoints.finite import refuse_not_finite
from vit_attn.errors import UserError

KINDS = (torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.float8_e5m2)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_tensor_that_is_not_finite_is_named_with_how_many_of_its_numbers(kind: torch.dtype, value: float):
    broken = torch.ones(4, 5)
    broken[1, 2:4] = value
    state = {"a": torch.ones(3), "b": broken.to(kind), "c": broken}
    told = r"^x\.ckpt: b has NaN or infinity in 2 of its 20 numbers, and so have 1 more tensors: .* earlier checkpoint"
    with pytest.raises(UserError, match=told):
        refuse_not_finite(state, "x.ckpt")


def test_finite_weights_and_what_is_no_number_pass():
    largest = {
        str(kind): torch.tensor([torch.finfo(kind).max, torch.finfo(kind).min], dtype=torch.double).to(kind)
        for kind in KINDS
    }
    refuse_not_finite(largest | {"none": torch.ones(0), "count": torch.arange(3), "name": "net"}, "x.ckpt")

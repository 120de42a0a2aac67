import lightning as L
import pytest
from lightning.pytorch.callbacks import GradientAccumulationScheduler

from vit_attn.errors import UserError
from vit_attn.training.compiling import compile_step

QUIET = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False, "enable_progress_bar": False}


@pytest.mark.parametrize("mode", ["reduce-overhead", "max-autotune"])
def test_cuda_graphs_are_refused_where_gradients_accumulate_now_or_later(mode):
    later = L.Trainer(callbacks=[GradientAccumulationScheduler({0: 1, 4: 2})], **QUIET)
    for trainer in (L.Trainer(accumulate_grad_batches=2, **QUIET), later):
        with pytest.raises(UserError, match=f"compile_mode={mode} needs a step for each batch"):
            compile_step(len, mode, trainer)
        assert compile_step(len, "default", trainer)
    never = L.Trainer(callbacks=[GradientAccumulationScheduler({0: 1})], **QUIET)
    assert compile_step(len, mode, never)

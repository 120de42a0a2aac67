from itertools import pairwise

import pytest

from vit_attn.training.schedule import warmup_decay


@pytest.mark.parametrize("decay", ["cosine", "linear"])
def test_it_rises_to_the_peak_and_falls_to_zero(decay):
    factors = [warmup_decay(step, total=100, warmup=10, decay=decay) for step in range(101)]
    assert factors[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert max(factors) == factors[10] == 1
    assert all(a > b for a, b in pairwise(factors[10:]))
    assert factors[55] == pytest.approx(0.5)
    assert factors[100] == pytest.approx(0)


def test_without_warmup_it_starts_at_the_peak_and_past_the_end_it_stays_at_zero():
    assert warmup_decay(0, total=10, warmup=0) == 1
    assert warmup_decay(11, total=10, warmup=0) == pytest.approx(0)

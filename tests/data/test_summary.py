import pytest

from vit_attn.data.datasets.remarks import Doubt
from vit_attn.data.summary import log_splits


def test_a_doubt_is_a_warning_and_another_remark_is_not(caplog):
    with caplog.at_level("INFO"), pytest.warns(UserWarning, match="^val holds no picture$") as told:
        log_splits("folder", ["cat", "dog"], {}, ["read from photos", Doubt("val holds no picture")])
    assert len(told) == 1
    assert "read from photos" in caplog.messages
    assert "val holds no picture" not in caplog.messages

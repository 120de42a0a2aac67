"""Which tests are in the fast lane: ``pytest_collection_modifyitems`` in conftest.py decides it from their code."""

import subprocess
import sys

import pytest


def started() -> int:
    return subprocess.run([sys.executable, "-c", ""], check=False).returncode


@pytest.fixture
def start():
    return lambda: started()


def is_slow(request: pytest.FixtureRequest) -> bool:
    return request.node.get_closest_marker("slow") is not None


def test_a_test_that_starts_nothing_is_fast(request):
    assert not is_slow(request)


def test_a_test_whose_helper_starts_a_process_is_slow(request):
    assert is_slow(request)
    assert started() == 0


@pytest.mark.usefixtures("start")
def test_a_test_whose_fixture_starts_a_process_is_slow(request):
    assert is_slow(request)


def test_a_test_that_trains_is_slow(request):
    def train(trainer):
        trainer.fit()

    assert is_slow(request), train

import itertools

import pytest

from vit_attn.callbacks import cost_meter
from vit_attn.callbacks.cost_meter import CostMeter


class Clock:
    """A time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


def loggings(
    monkeypatch: pytest.MonkeyPatch, epoch: float, cost: float, epochs: int, max_fraction: float
) -> tuple[list, float]:
    """Epochs that were logged in a run whose first (0) and last always are, and the fraction that logging took."""
    clock = Clock()
    monkeypatch.setattr(cost_meter, "time", clock)
    meter, logged = CostMeter(max_fraction), []

    def log(number: int) -> None:
        with meter.spending():
            clock.now += cost / 3
        with meter.spending(continued=True):
            clock.now += 2 * cost / 3
        logged.append(number)

    log(0)
    for number in range(1, epochs + 1):
        clock.now += epoch
        if number == epochs or meter.affords(number / epochs):
            log(number)
    return logged, meter.fraction


def test_cheap_loggings_are_all_made(monkeypatch: pytest.MonkeyPatch):
    logged, fraction = loggings(monkeypatch, epoch=60, cost=0.9, epochs=5, max_fraction=0.02)
    assert logged == [0, 1, 2, 3, 4, 5]
    assert fraction == pytest.approx(5.4 / 305.4)


@pytest.mark.parametrize("cost", [0.5, 1.0, 2.0, 5.0, 20.0])
@pytest.mark.parametrize(("epoch", "epochs"), [(60, 40), (2, 1000), (300, 8)])
def test_the_fraction_stays_below_its_bound_where_two_loggings_do(monkeypatch, cost: float, epoch: float, epochs: int):
    logged, fraction = loggings(monkeypatch, epoch, cost, epochs, max_fraction=0.02)
    assert logged[0] == 0
    assert logged[-1] == epochs
    assert fraction <= 0.02
    could = 0.02 * (epoch * epochs) / cost
    assert len(logged) >= min(epochs + 1, int(0.8 * could))  # and what it may take is used
    gaps = [b - a for a, b in itertools.pairwise(logged)]
    assert max(gaps) <= 2.5 * epochs / len(logged) + 1  # all through the run


def test_a_run_that_is_too_short_has_its_first_and_last(monkeypatch: pytest.MonkeyPatch):
    assert loggings(monkeypatch, epoch=1, cost=1.0, epochs=6, max_fraction=0.02)[0] == [0, 6]
    assert loggings(monkeypatch, epoch=1, cost=1.0, epochs=3, max_fraction=1.0)[0] == [0, 1, 2, 3]

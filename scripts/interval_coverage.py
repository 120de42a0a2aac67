#!/usr/bin/env python
"""Simulate how often intervals of nominally 95 % hold the mean; docs/methods.md shows the figures.

.venv/bin/python scripts/interval_coverage.py
"""

import numpy as np

from vit_attn.attention_maps.evaluation.intervals import CHANGES, HITS, t_quantile

SAMPLES, RESAMPLES = 1500, 500
IMAGES = (8, 16, 32, 64, 256)


def populations(rng: np.random.Generator) -> dict[str, tuple]:
    """Distributions of a measure over images by name, each with its mean."""
    return {
        "area": (lambda size: rng.beta(2, 5, size), 2 / 7),
        "skewed area": (lambda size: rng.beta(0.5, 3, size), 0.5 / 3.5),
        "skewed change of a logit": (lambda size: -rng.gamma(1, 1, size), -1.0),
        "change of a logit": (lambda size: rng.normal(0, 1, size), 0.0),
        "paired difference, heavy tails": (lambda size: rng.standard_t(3, size), 0.0),
    }


def outcomes(rng: np.random.Generator) -> dict[str, tuple]:
    """Counted outcomes by name: samples, mean, and the outcomes that are added."""

    def change(lost: float, gained: float, size: tuple[int, int]) -> np.ndarray:
        draw = rng.random(size)
        return (draw > 1 - gained).astype(float) - (draw < lost)

    return {
        **{f"hits of {p}": (lambda size, p=p: (rng.random(size) < p) * 1.0, p, HITS) for p in (0.5, 0.9, 0.98)},
        **{
            f"lost {lost}, gained {gained}": (
                lambda size, lost=lost, gained=gained: change(lost, gained, size),
                gained - lost,
                CHANGES,
            )
            for lost, gained in ((0.02, 0.0), (0.1, 0.02), (0.3, 0.05), (0.9, 0.0))
        },
    }


def student(samples: np.ndarray, mean: float) -> float:
    """Coverage of Student's t."""
    count = samples.shape[1]
    margin = t_quantile(count - 1) * samples.std(axis=1, ddof=1) / np.sqrt(count)
    return float(np.mean(np.abs(samples.mean(axis=1) - mean) <= margin + 1e-12))


def bootstrap(samples: np.ndarray, mean: float, rng: np.random.Generator) -> tuple[float, float]:
    """Coverage of percentiles of resampled means, and of studentised ones."""
    plain = studentised = 0
    count = samples.shape[1]
    for sample in samples:
        drawn = sample[rng.integers(0, count, (RESAMPLES, count))]
        means, error = drawn.mean(axis=1), sample.std(ddof=1) / np.sqrt(count)
        low, high = np.quantile(means, [0.025, 0.975])
        plain += low <= mean <= high
        errors = np.maximum(drawn.std(axis=1, ddof=1) / np.sqrt(count), 1e-9)
        low, high = np.quantile((means - sample.mean()) / errors, [0.025, 0.975])
        studentised += sample.mean() - high * error <= mean <= sample.mean() - low * error
    return plain / len(samples), studentised / len(samples)


def main() -> None:
    rng = np.random.default_rng(0)
    print("images, population: Student's t, percentiles, studentised")
    for images in IMAGES:
        for name, (draw, mean) in populations(rng).items():
            samples = draw((SAMPLES, images))
            plain, studentised = bootstrap(samples, mean, rng)
            print(f"{images:3} {name:32} {student(samples, mean):.3f} {plain:.3f} {studentised:.3f}", flush=True)
    print("images, counted outcomes: Student's t, with outcomes added")
    for images in IMAGES:
        for name, (draw, mean, added) in outcomes(rng).items():
            samples = draw((10 * SAMPLES, images))
            more = np.concatenate([samples, np.tile(added, (len(samples), 1))], axis=1)
            print(f"{images:3} {name:32} {student(samples, mean):.3f} {student(more, mean):.3f}", flush=True)


if __name__ == "__main__":
    main()

"""Removes noise with non-local means and resamples to small cubic voxels, on every core.

Usage: denoise_upsample.py INPUT OUTPUT
"""

import itertools
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from scipy import ndimage
from volume import load, log, save, setting, spacing

PATCH = 3
SLABS = 32


def noise_level(series: np.ndarray) -> float:
    """Estimate the noise from what differs between two time points, or from what a median removes of a single one."""
    first = series[..., 0]
    scale = np.sqrt(2) if series.shape[3] > 1 else 1.0
    other = series[..., 1] if series.shape[3] > 1 else ndimage.median_filter(first, 3)
    tissue = first > 0.25 * np.percentile(first, 99)
    return float(np.median(np.abs(first - other)[tissue]) / 0.6745 / scale)


def weigh(padded: np.ndarray, margin: int, sigma: float, shifts: list[tuple[int, ...]]) -> tuple[np.ndarray, ...]:
    """Sum up shifted copies of a volume, each voxel weighted by how alike the two neighbourhoods are."""

    def window(shift: tuple[int, ...]) -> np.ndarray:
        return padded[tuple(slice(margin + s, n - margin + s) for s, n in zip(shift, padded.shape, strict=True))]

    here = window((0, 0, 0))
    total, weights, buffer = (np.zeros(here.shape, np.float32) for _ in range(3))
    for shift in shifts:
        there = window(shift)
        np.subtract(here, there, out=buffer)
        np.multiply(buffer, buffer, out=buffer)
        ndimage.uniform_filter(buffer, PATCH, output=buffer)
        np.multiply(buffer, np.float32(-0.5 / sigma**2), out=buffer)
        np.exp(buffer, out=buffer)
        weights += buffer
        total += np.multiply(buffer, there, out=buffer)
    return total, weights


def denoise(series: np.ndarray, radius: int, pool: ThreadPoolExecutor) -> np.ndarray:
    """Average all time points over all alike neighbourhoods in reach."""
    sigma, reach = noise_level(series), range(-radius, radius + 1)
    log(f"noise {sigma:.1f}; comparing {len(reach) ** 3} neighbourhoods per voxel, {series.shape[3]} time point(s)")
    sides = ((radius, radius),) * 3
    padded = [np.pad(series[..., time], sides, mode="reflect") for time in range(series.shape[3])]
    planes = [list(itertools.product((x,), reach, reach)) for x in reach]
    jobs = itertools.product(padded, planes)
    total = weights = np.float32(0)
    for part, weight in pool.map(lambda job: weigh(job[0], radius, sigma, job[1]), jobs):
        total, weights = total + part, weights + weight
    return total / weights


def upsample(volume: np.ndarray, old: np.ndarray, new: float, pool: ThreadPoolExecutor) -> np.ndarray:
    """Resample to cubic voxels with cubic splines, slab by slab."""
    scale = new / old
    shape = np.round(volume.shape / scale).astype(int)
    knots = ndimage.spline_filter(volume, output=np.float32)
    result = np.empty(shape, np.float32)
    edges = np.linspace(0, shape[0], SLABS + 1).astype(int)

    def fill(start: int, stop: int) -> None:
        offset = (np.array([start, 0, 0]) + 0.5) * scale - 0.5
        options = {"output": result[start:stop], "prefilter": False, "mode": "nearest"}
        ndimage.affine_transform(knots, np.diag(scale), offset, (stop - start, *shape[1:]), **options)

    list(pool.map(fill, edges[:-1], edges[1:]))
    return result


def resized_affine(affine: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Describe where the small voxels lie."""
    step = np.diag([*scale, 1.0])
    step[:3, 3] = (scale - 1) / 2
    return affine @ step


def main() -> None:
    """Run the operator."""
    source, output = sys.argv[1:]
    series, affine = load(source)
    threads = int(setting("THREADS", 0)) or len(os.sched_getaffinity(0))
    old, new = spacing(affine), setting("VOXEL_MM", 0.5)
    log(f"{series.shape} read, working on {threads} thread(s)")
    with ThreadPoolExecutor(threads) as pool:
        clean = denoise(series, int(setting("SEARCH_RADIUS", 9)), pool)
        log(f"denoised; resampling from {' x '.join(f'{edge:.2f}' for edge in old)} mm to {new} mm")
        fine = upsample(clean, old, new, pool)
    log(f"resampled to {' x '.join(map(str, fine.shape))} voxels")
    save(fine, resized_affine(affine, new / old), Path(output) / "volume.nii")


if __name__ == "__main__":
    main()

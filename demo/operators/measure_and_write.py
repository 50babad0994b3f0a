"""Measures what was segmented, writes it for people and machines, and proves that the disk has it.

The study folder gets JSON, NIfTI, slices as PNG and a picture. Then every volume is read back block by block past the
page cache, as an archive does before it lets go of the original.

Usage: measure_and_write.py VOLUME LABELS DEPTH OUTPUT
"""

import json
import mmap
import os
import sys
import zlib
from pathlib import Path

import numpy as np
import png
from scipy import ndimage
from volume import load, log, save, spacing, sync

VENTRICLES = 2
GREEN, RED = np.array([90, 230, 120]), np.array([235, 60, 60])
COLUMNS, SLICE_STEP = 3, 16
BLOCK = 4096


def surface_mm2(mask: np.ndarray, voxel: float) -> float:
    """Integrate the slope of the softened mask: the area of its surface."""
    soft = ndimage.gaussian_filter(np.pad(mask, 4).astype(np.float32), 1)
    slopes = np.gradient(soft, voxel)
    return float(np.sqrt(sum(slope**2 for slope in slopes)).sum() * voxel**3)


def measure(mask: np.ndarray, depth: np.ndarray, affine: np.ndarray) -> dict[str, object]:
    """Describe one segmented part in millimetres and millilitres."""
    voxel = float(spacing(affine).mean())
    box = ndimage.find_objects(mask.astype(np.uint8))[0]
    volume, surface = float(mask.sum()) * voxel**3, surface_mm2(mask[box], voxel)
    centre = affine[:3, :3] @ np.array(ndimage.center_of_mass(mask)) + affine[:3, 3]
    return {
        "volume_ml": round(volume / 1000, 2),
        "surface_cm2": round(surface / 100, 1),
        "sphericity": round(np.pi ** (1 / 3) * (6 * volume) ** (2 / 3) / surface, 3),
        "extent_mm": [round((side.stop - side.start) * voxel, 1) for side in box],
        "centre_mm": [round(float(value), 1) for value in centre],
        "mean_depth_mm": round(float(depth[mask].mean()), 1),
    }


def draw(grey: np.ndarray, label: np.ndarray, white: float) -> np.ndarray:
    """Draw one slice: grey, the brain's edge green, the ventricles red."""
    grey, label = grey.T[::-1], label.T[::-1]
    picture = np.repeat(np.clip(grey / white * 255, 0, 255)[..., None], 3, axis=2)
    brain, inside = label > 0, label == VENTRICLES
    picture[brain & ~ndimage.binary_erosion(brain)] = GREEN
    picture[inside] = 0.55 * picture[inside] + 0.45 * RED
    picture[inside & ~ndimage.binary_erosion(inside)] = RED
    return picture.astype(np.uint8)


def write_png(pixels: np.ndarray, path: Path) -> None:
    """Write a picture, and wait until the disk has it."""
    height, width, _ = pixels.shape
    with path.open("wb") as file:
        png.Writer(width, height, greyscale=False, compression=4).write(file, pixels.reshape(height, -1))
    sync(path)


def write_slices(volume: np.ndarray, labels: np.ndarray, white: float, folder: Path) -> None:
    """Write slices of all three directions for review."""
    folder.mkdir(exist_ok=True)
    for axis, direction in enumerate(("sagittal", "coronal", "axial")):
        for level in range(0, volume.shape[axis], SLICE_STEP):
            grey, label = (field.take(level, axis) for field in (volume, labels))
            write_png(draw(grey, label, white), folder / f"{direction}-{level:03}.png")
        log(f"wrote the {direction} slices")


def overview(volume: np.ndarray, labels: np.ndarray, white: float) -> np.ndarray:
    """Lay axial slices that go evenly through the ventricles side by side."""
    levels = np.flatnonzero((labels == VENTRICLES).any(axis=(0, 1)))
    chosen = [int(np.quantile(levels, share)) for share in np.linspace(0.3, 0.93, 2 * COLUMNS)]
    drawn = [draw(volume[:, :, level], labels[:, :, level], white) for level in chosen]
    return np.vstack([np.hstack(drawn[:COLUMNS]), np.hstack(drawn[COLUMNS:])])


def crc_on_disk(path: Path) -> int:
    """Read a file from the disk itself, one block after the other, and sum it up."""
    block = mmap.mmap(-1, BLOCK)  # direct reads need memory that starts at a page
    crc = 0
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECT)
    try:
        while size := os.readv(descriptor, [block]):
            crc = zlib.crc32(memoryview(block)[:size], crc)
    finally:
        os.close(descriptor)
    return crc


def archive(values: np.ndarray, affine: np.ndarray, path: Path) -> None:
    """Write a volume and compare what the disk gives back with what the cache holds."""
    save(values, affine, path)
    expected = zlib.crc32(path.read_bytes())
    try:
        found = crc_on_disk(path)
    except OSError:  # a file system in memory has no disk behind its cache
        log(f"{path.name}: no direct reads here, not compared")
        return
    if found != expected:
        sys.exit(f"{path.name} is not on the disk as it was written")
    log(f"compared {path.name} with the disk, block by block")


def main() -> None:
    """Run the operator."""
    volume_input, labels_input, depth_input, output = sys.argv[1:]
    (volume, affine), (labels, _), (depth, _) = load(volume_input), load(labels_input, np.uint8), load(depth_input)
    log(f"{' x '.join(map(str, volume.shape))} voxels read")
    report = {"brain": measure(labels > 0, depth, affine), "ventricles": measure(labels == VENTRICLES, depth, affine)}
    share = report["ventricles"]["volume_ml"] / report["brain"]["volume_ml"]
    log(f"brain in view {report['brain']['volume_ml']} mL, ventricles {report['ventricles']['volume_ml']} mL")
    folder = Path(output)
    (folder / "report.json").write_text(json.dumps({**report, "ventricles_share": round(share, 4)}, indent=2) + "\n")
    for name, values in (("labels", labels), ("depth", depth), ("volume", volume)):
        archive(values, affine, folder / f"{name}.nii")
    white = float(np.percentile(volume[labels > 0], 99.8))
    write_slices(volume, labels, white, folder / "slices")
    write_png(overview(volume, labels, white), folder / "picture.png")
    log("wrote report.json and picture.png")


if __name__ == "__main__":
    main()

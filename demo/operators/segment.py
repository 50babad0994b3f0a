"""Finds the brain and its ventricles: threshold, connected components, distance transform, and a model on a server.

Usage: segment.py INPUT LABELS_OUTPUT DEPTH_OUTPUT
"""

import sys
from pathlib import Path

import numpy as np
from scipy import ndimage
from triton import infer
from volume import load, log, save, spacing

BRAIN, VENTRICLES = 1, 2
MODEL = "ventricles"


def otsu(values: np.ndarray) -> float:
    """Return the threshold that parts dark from bright best (Otsu's method)."""
    counts, edges = np.histogram(values, 256)
    centres = (edges[1:] + edges[:-1]) / 2
    below, moment = np.cumsum(counts)[:-1], np.cumsum(counts * centres)
    between = (moment[-1] * below / counts.sum() - moment[:-1]) ** 2 / (below * (counts.sum() - below) + 1.0)
    return float(centres[between.argmax()])


def largest(mask: np.ndarray) -> np.ndarray:
    """Keep the largest connected part."""
    parts, _ = ndimage.label(mask)
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return parts == sizes.argmax()


def find_brain(smooth: np.ndarray) -> np.ndarray:
    """Take the largest bright part, without holes."""
    threshold = 0.8 * otsu(smooth)
    brain = ~largest(~largest(smooth > threshold))
    log(f"threshold {threshold:.0f}: {brain.mean():.0%} of the volume is brain")
    return brain


def depth_in(brain: np.ndarray, voxel: float) -> np.ndarray:
    """Measure how far each voxel lies below the brain's surface; this is the operator's short and tall memory peak."""
    return ndimage.distance_transform_edt(brain, sampling=voxel).astype(np.float32)


def main() -> None:
    """Run the operator."""
    source, labels_output, depth_output = sys.argv[1:]
    volume, affine = load(source)
    voxel = float(spacing(affine).mean())
    smooth = ndimage.gaussian_filter(volume, 1 / voxel)
    del volume
    brain = find_brain(smooth)
    depth = depth_in(brain, voxel)
    log(f"the deepest point lies {depth.max():.0f} mm below the surface")
    found = infer(MODEL, SMOOTH=smooth, DEPTH=depth, VOXEL_MM=np.array([voxel], np.float32))
    log(f"the model answered: {np.count_nonzero(found['VENTRICLES'])} voxels")
    ventricles = largest(found["VENTRICLES"])
    log(f"ventricles: {np.count_nonzero(ventricles) * voxel**3 / 1000:.1f} mL")
    labels = np.where(ventricles, VENTRICLES, np.where(brain, BRAIN, 0)).astype(np.uint8)
    save(labels, affine, Path(labels_output) / "labels.nii")
    save(depth, affine, Path(depth_output) / "depth.nii")


if __name__ == "__main__":
    main()

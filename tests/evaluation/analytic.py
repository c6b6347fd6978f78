"""Discs with known measures: elliptic cylinders and wedges, at any angle, on the challenge's grid."""

import numpy as np

SPACING_MM = (2.0, 1.25, 1.25)
SHAPE = (36, 64, 64)


def rotation(degrees_3):
    """Turns about the patient's x, y and z axis, the last one first."""
    matrix = np.eye(3)
    for axis, degrees in enumerate(degrees_3):
        cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        turn = np.eye(3)
        i, j = (k for k in range(3) if k != axis)
        turn[i, i], turn[i, j], turn[j, i], turn[j, j] = cos, -sin, sin, cos
        matrix = matrix @ turn
    return matrix


def affine(shape=SHAPE, spacing_mm=SPACING_MM, turn_3x3=None):
    """Canonical axes (right, inferior, posterior) about the scanner's origin, turned."""
    matrix = np.eye(4)
    matrix[:3, :3] = np.array([[1, 0, 0], [0, 0, -1], [0, -1, 0]]) * spacing_mm
    if turn_3x3 is not None:
        matrix[:3, :3] = turn_3x3 @ matrix[:3, :3]
    matrix[:3, 3] = -matrix[:3, :3] @ ((np.array(shape) - 1) / 2)
    return matrix


def wedge(height_mm, ap_mm, transverse_mm, wedge_deg, turn_3x3, affine_4x4, center_mm=(0, 0, 0), shape=SHAPE):
    """A mask of an elliptic cylinder whose end planes open to the front by `wedge_deg`; True inside."""
    index = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), -1)
    point = index @ affine_4x4[:3, :3].T + affine_4x4[:3, 3] - np.asarray(center_mm)
    u, v, n = np.moveaxis(point @ turn_3x3, -1, 0)
    half = height_mm / 2 + v * np.tan(np.radians(wedge_deg / 2))
    return ((2 * u / transverse_mm) ** 2 + (2 * v / ap_mm) ** 2 <= 1) & (np.abs(n) <= half)

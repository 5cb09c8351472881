"""How tests look at what was written: pictures of sensible size with something in every part, fields for ParaView."""

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from matplotlib.image import imread


def check_picture(path: Path) -> None:
    content = path.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    assert 10_000 < len(content) < 2_000_000
    pixels = imread(path)[:, :, :3]
    assert min(pixels.shape[:2]) > 250
    assert pixels.mean(axis=2).std() > 0.05
    # something is drawn in every quarter of the picture's width
    assert all(part.std() > 0.02 for part in np.array_split(pixels, 4, axis=1))


def arrays(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of a VTK XML file (ASCII), by name; points as ``points``."""
    root = ElementTree.parse(path).getroot()
    found = {}
    for array in root.iter("DataArray"):
        values = np.array((array.text or "").split(), dtype=float)
        found.setdefault(array.get("Name") or "points", values)
    points = root.find(".//Points/DataArray")
    found["points"] = np.array((points.text or "").split(), dtype=float).reshape(-1, 3)
    return found

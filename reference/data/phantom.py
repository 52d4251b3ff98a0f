"""An embedded phantom: made-up abdominal CT volumes with a pancreas-like organ, where no real data are at hand.

Everything is drawn in millimetres around the centre of the body: x to the image's right (the patient's left), y to the
back, z to the head. Each tissue is a signed distance (negative inside) painted over the previous ones, softly, so
that a voxel at an edge is mixed; then come the blur and the noise of a scanner. Intensities are in HU.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, gaussian_filter1d

from reference.data.case import Case

Volume = NDArray[np.float64]

FIELD_OF_VIEW = 320.0
SLICE_THICKNESS = 6.0
WINDOW = (-100.0, 240.0)


def make_phantom(seed: int, *, size: int = 128, depth: int = 8) -> Case:
    """Return one made-up patient, drawn from `seed` alone.

    The organ is a thin, lobulated, curved tube in mesentery. Stomach, duodenum and loops of bowel have its
    intensity, touch it, and are larger; kidneys, liver, spleen, spine and vessels surround them.

    Args:
        seed: the same seed gives the same volume.
        size: pixels along H and W, which always cover 320 mm.
        depth: slices, 6 mm apart.

    Returns:
        A case named after its seed: image (depth, size, size) in whole HU, label likewise, spacing in mm.
    """
    rng = np.random.default_rng(seed)
    step = FIELD_OF_VIEW / size
    z, y, x = np.meshgrid(
        (np.arange(depth) - (depth - 1) / 2) * SLICE_THICKNESS,
        *[(np.arange(size) - (size - 1) / 2) * step] * 2,
        indexing="ij",
        sparse=True,
    )
    canvas = _Canvas(rng, (z, y, x), step)
    label = _draw(canvas, rng)
    image = gaussian_filter(canvas.image, (0, 0.8, 0.8))
    image += gaussian_filter(rng.normal(0, 35, image.shape), (0, 0.6, 0.6))
    return Case(
        f"phantom-{seed:04d}",
        f"phantom-{seed:04d}",
        image.round().astype(np.int16),
        label,
        (SLICE_THICKNESS, step, step),
        WINDOW,
    )


class _Canvas:
    """The volume under the brush."""

    def __init__(self, rng: np.random.Generator, grid: tuple[Volume, Volume, Volume], step: float) -> None:
        self.rng, self.grid, self.step = rng, grid, step
        self.shape = np.broadcast_shapes(*(axis.shape for axis in grid))
        self.image = np.full(self.shape, -1000.0)

    def texture(self, scale: float) -> Volume:
        """Smooth noise of unit variance and `scale` mm grain, in plane."""
        grain = gaussian_filter(self.rng.normal(size=self.shape), (0.7, scale / self.step, scale / self.step))
        return np.asarray(grain / grain.std())

    def ellipsoid(self, x: float, y: float, z: float, rx: float, ry: float, rz: float, angle: float = 0.0) -> Volume:
        """About the signed distance to an ellipsoid turned by `angle` about the z axis."""
        gz, gy, gx = self.grid
        dx, dy = gx - x, gy - y
        u, v = dx * np.cos(angle) + dy * np.sin(angle), dy * np.cos(angle) - dx * np.sin(angle)
        return np.asarray((np.sqrt((u / rx) ** 2 + (v / ry) ** 2 + ((gz - z) / rz) ** 2) - 1) * min(rx, ry))

    def tube(self, points: list[tuple[float, float, float]], radii: list[float]) -> Volume:
        """Signed distance to a tube along a smooth curve through `points` (x, y, z)."""
        knots = np.linspace(0, 1, len(points))
        fine = np.linspace(0, 1, 32)
        curve = np.stack(
            [np.interp(fine, knots, axis) for axis in np.transpose(points)] + [np.interp(fine, knots, radii)]
        )
        curve = gaussian_filter1d(curve, 2, axis=1, mode="nearest")
        gz, gy, gx = self.grid
        distance = np.full(self.shape, np.inf)
        for x, y, z, radius in curve.T:
            np.minimum(distance, np.sqrt((gx - x) ** 2 + (gy - y) ** 2 + (gz - z) ** 2) - radius, out=distance)
        return np.asarray(distance)

    def paint(self, distance: Volume, value: float | Volume) -> None:
        """Put `value` (HU) inside `distance` < 0, mixing over one voxel at the edge."""
        share = np.clip(0.5 - distance / self.step, 0, 1)
        self.image += share * (value - self.image)


def _draw(canvas: _Canvas, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Paint one patient and return where the organ is."""

    def around(value: float, spread: float) -> float:
        return float(value + spread * rng.uniform(-1, 1))

    wide, deep = around(144, 12), around(112, 9)
    body = canvas.ellipsoid(0, 0, 0, wide, deep, 1e6)
    fat, wall = around(12, 6), 12.0
    canvas.paint(body, -95.0)
    canvas.paint(body + fat, 55 + 6 * canvas.texture(4))
    cavity = canvas.ellipsoid(0, -6, 0, wide - fat - wall, deep - fat - wall - 8, 1e6)
    canvas.paint(cavity, -62 + 30 * canvas.texture(8))

    # Spine, psoas muscles and ribs.
    back = deep - fat - 38
    for side in (-1, 1):
        canvas.paint(canvas.ellipsoid(side * 36, back, 0, 17, 21, 1e6), around(58, 5))
    canvas.paint(canvas.ellipsoid(0, back + 26, 0, 9, 24, 1e6), around(320, 60))
    canvas.paint(canvas.ellipsoid(0, back, 0, 23, 19, 1e6), around(260, 50))
    canvas.paint(canvas.ellipsoid(0, back, 0, 18, 14, 1e6), around(170, 25) + 15 * canvas.texture(3))
    for angle in np.linspace(-0.9, 0.9, 5):
        for side in (-1, 1):
            x, y = side * (wide - fat - 6) * np.cos(angle), (deep - fat - 6) * np.sin(angle)
            canvas.paint(canvas.ellipsoid(x, y, 0, 4, 8, 1e6, side * angle), around(300, 60))

    # Large organs that are easy to tell by place and brightness.
    liver = canvas.ellipsoid(-wide * 0.6, -deep * 0.1, 20, wide * 0.36, deep * 0.6, 80, 0.2)
    canvas.paint(np.maximum(liver, cavity), around(112, 8) + 7 * canvas.texture(4))
    spleen = canvas.ellipsoid(wide * 0.62, deep * 0.18, 22, 20, 38, 42, -0.3)
    canvas.paint(np.maximum(spleen, cavity), around(122, 8) + 6 * canvas.texture(4))
    for side in (-1, 1):
        kx, ky, kz = side * around(76, 5), back - around(12, 5), -10 + 6 * side
        canvas.paint(canvas.ellipsoid(kx, ky, kz, 24, 29, 52, side * 0.4), around(185, 18) + 8 * canvas.texture(3))
        canvas.paint(canvas.ellipsoid(kx - side * 10, ky, kz, 9, 13, 28, side * 0.4), around(-20, 40))

    # The organ's course: head beside the duodenum, neck and body over the spine, tail up to the spleen.
    head = around(-42, 7), around(2, 6)
    course = [
        (head[0] - 2, head[1] + 16, -30),
        (head[0], head[1], -14),
        (around(-14, 5), head[1] - around(14, 5), around(-4, 4)),
        (around(12, 5), head[1] - around(16, 6), around(2, 4)),
        (around(42, 5), head[1] + around(0, 8), around(12, 5)),
        (around(72, 7), head[1] + around(12, 8), around(22, 6)),
    ]
    radii = [around(11, 2), around(13, 2.5), around(7.5, 1.2), around(9, 1.5), around(9, 1.5), around(7, 1.5)]
    value = around(88, 10)

    # Look-alikes of its brightness: bowel loops, stomach and duodenum, each with a wall and a content of its own.
    for _ in range(int(rng.integers(9, 14))):
        x, y = around(0, 95), around(-22, 42)
        loop = canvas.tube(
            [(x, y, -60), (x + around(0, 14), y + around(0, 12), 0), (x + around(0, 26), y + around(0, 22), 60)],
            [around(12, 4)] * 3,
        )
        _bowel(canvas, np.maximum(loop, np.maximum(cavity, -liver)), around(value, 14), rng)
    stomach = canvas.tube(
        [(around(62, 8), -28, 60), (around(52, 8), -40, 10), (around(14, 8), around(-44, 5), -10), (-30, -30, -22)],
        [30, 23, 17, 12],
    )
    _bowel(canvas, np.maximum(stomach, cavity), around(value, 12), rng)
    duodenum = canvas.tube(
        [
            (head[0] - 14, head[1] - 26, 10),
            (head[0] - 24, head[1] + 2, -8),
            (head[0] - 18, head[1] + 24, -28),
            (10, 30, -40),
        ],
        [around(10, 1.5)] * 4,
    )
    _bowel(canvas, np.maximum(duodenum, cavity), around(value, 8), rng)

    # Lobules roughen the outline; a thin film of fat parts the organ from its neighbours only here and there.
    organ = canvas.tube(course, radii) + 1.8 * canvas.texture(5)
    canvas.paint(organ - 2.5, canvas.image * 0.6 - 8)
    canvas.paint(organ, value + 12 * canvas.texture(4))

    # Vessels: splenic vein behind the organ, the confluence and artery by its neck, aorta and cava on the spine.
    bright = around(165, 18)
    vein = [(x + 2, y + radius + 4, z - 2) for (x, y, z), radius in zip(course[2:], radii[2:], strict=True)]
    vessels = [canvas.tube(vein, [4.0] * len(vein))]
    vessels.append(canvas.ellipsoid(course[2][0], course[2][1] + radii[2] + 6, 0, 6.5, 6.5, 1e6))
    vessels.append(canvas.ellipsoid(course[2][0] + 17, course[2][1] + radii[2] + 9, 0, 4.5, 4.5, 1e6))
    vessels.append(canvas.ellipsoid(around(10, 3), back - 29, 0, 10, 10, 1e6))
    vessels.append(canvas.ellipsoid(around(-19, 3), back - 26, 0, 12, 9, 1e6))
    for vessel in vessels:
        canvas.paint(vessel, bright)
    return np.asarray((organ < 0) & (np.minimum.reduce(vessels) > 0))


def _bowel(canvas: _Canvas, distance: Volume, value: float, rng: np.random.Generator) -> None:
    """Paint a hollow organ; its content is collapsed, fluid or, at times, gas in front."""
    canvas.paint(distance, value + 10 * canvas.texture(4))
    content = rng.choice(["collapsed", "fluid", "gas"], p=[0.55, 0.33, 0.12])
    if content != "collapsed":
        canvas.paint(distance + 4, 25.0 if content == "fluid" else -500.0)

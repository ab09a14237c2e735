"""Draw targets on the sky: a map of equal areas (Mollweide), right ascension from right to left, 12 h in the middle."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from lake.text import counted, one_line
from tasks.analysis.report.grids import level, short

_WIDTH, _HEIGHT, _MARGIN = 720, 372, 22
_RADIUS = 3.2
_LARGEST = 9.0
# More dots than this are drawn without an outline.
_MANY = 400

# ICRS position of the north Galactic pole, deg (Hipparcos catalogue, vol. 1, section 1.5.3).
_POLE = (192.85948, 27.12825)

# A picture alone has no style of its page.
_ALONE = """<style>
svg { font-family: Helvetica, Arial, "DejaVu Sans", sans-serif; }
.globe { fill: #fff; stroke: #52606d; } .net { fill: none; stroke: #d9dee4; }
.plane { fill: none; stroke: #52606d; stroke-dasharray: 5 4; }
circle { stroke: #1f2933; stroke-width: 0.7; } text { fill: #52606d; font-size: 12px; }
.l0 { fill: #eef2f6; } .l1 { fill: #deebf7; } .l2 { fill: #c6dbef; } .l3 { fill: #9ecae1; }
.l4 { fill: #6baed6; } .l5 { fill: #4292c6; } .l6 { fill: #2171b5; } .l7 { fill: #08519c; }
</style><rect width="100%" height="100%" fill="#fff"/>
<text x="8" y="16">Targets on the sky: the darker, the more points</text>"""


def mollweide(ra: npt.ArrayLike, dec: npt.ArrayLike) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Project positions (deg) to x from -2 to 2 and y from -1 to 1, as in J. P. Snyder 1987, USGS PP 1395, ch. 31.

    Examples
    --------
    >>> [float(one) for one in mollweide(180, 0)], [round(float(one), 6) for one in mollweide(0, 90)]
    ([0.0, 0.0], [0.0, 1.0])
    """
    east = np.radians(np.asarray(ra, float) - 180)
    latitude = np.radians(np.asarray(dec, float))
    wanted = np.pi * np.sin(latitude)
    theta = latitude.copy()
    for _ in range(60):
        slope = 2 + 2 * np.cos(2 * theta)
        step = np.where(slope > 1e-9, (2 * theta + np.sin(2 * theta) - wanted) / np.maximum(slope, 1e-9), 0.0)
        theta = np.clip(theta - step, -np.pi / 2, np.pi / 2)
    x = 2 / np.pi * east * np.cos(theta)
    return 0.0 - x, np.sin(theta)


def sky_svg(dots: Sequence[Mapping[str, Any]], *, alone: bool = False) -> str:
    """Draw a map: a dot's size is its number of targets, its colour their number of measurements.

    Parameters
    ----------
    dots
        Rows with ra, dec, targets, measurements, name (None: of several targets), hpx_order (of their pixels).
    alone
        The picture brings its own colours, for white paper.
    """
    most = max((int(one["targets"]) for one in dots), default=1)
    x, y = _places([one["ra"] for one in dots], [one["dec"] for one in dots])
    order = sorted(range(len(dots)), key=lambda i: (-int(dots[i]["targets"]), i))  # small ones on top
    marks = "".join(
        f'<circle class="{level(dots[i]["measurements"])}" cx="{x[i]:.1f}" cy="{y[i]:.1f}" '
        f'r="{_radius(int(dots[i]["targets"]), most, dots[i]["hpx_order"]):.1f}" data-targets="{dots[i]["targets"]}" '
        f'data-v="{dots[i]["measurements"]}"><title>{_about(dots[i])}</title></circle>'
        for i in order
    )
    about = f"Map of the sky with {counted(sum(int(one['targets']) for one in dots), 'target')}"
    kind = "sky even" if most == 1 else "sky dense" if len(dots) > _MANY else "sky"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="{kind}" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{about}">{_ALONE if alone else ""}{_net()}{marks}</svg>'
    )


def sky_png(dots: Sequence[Mapping[str, Any]]) -> bytes:
    """Draw the same map as a picture."""
    import vl_convert

    from tasks.analysis.figures.pictures import packed_png

    return packed_png(bytes(vl_convert.svg_to_png(sky_svg(dots, alone=True), scale=1.5)))


def _places(ra: Iterable[float], dec: Iterable[float]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    x, y = mollweide(np.asarray(list(ra), float), np.asarray(list(dec), float))
    scale = (_WIDTH - 2 * _MARGIN) / 4
    return _WIDTH / 2 + scale * x, _HEIGHT / 2 - scale * y


def _radius(targets: int, most: int, order: int) -> float:
    """Return the radius of a dot; the largest fills its pixel, if that is small, so that a full sky is no heap."""
    if most == 1:
        return _RADIUS + 1.3
    pixel = (_WIDTH - 2 * _MARGIN) / 4 * math.sqrt(2 / (12 * 4**order))
    largest = min(_LARGEST, pixel) if pixel > _RADIUS else _LARGEST
    smallest = min(_RADIUS, largest / 3)
    return smallest + (largest - smallest) * math.sqrt((targets - 1) / (most - 1))


def _about(dot: Mapping[str, Any]) -> str:
    whose = counted(dot["targets"], "target") if dot["name"] is None else one_line(str(dot["name"]))
    n = dot["measurements"]
    return html.escape(f"{whose}: {short(n)} {'point' if n == 1 else 'points'}, at {dot['ra']:.2f} {dot['dec']:+.2f}")


def _net() -> str:
    """Draw the outline, meridians, parallels and the Galactic plane, with hours and degrees."""
    edge = np.linspace(-90, 90, 91)
    across = np.linspace(0, 360, 181)
    lines = [_path("net", np.full(91, hour * 15.0), edge) for hour in range(4, 24, 4)]
    lines += [_path("net", across, np.full(181, float(dec))) for dec in (-60, -30, 0, 30, 60)]
    scale = (_WIDTH - 2 * _MARGIN) / 4
    lines.append(
        f'<ellipse class="globe" cx="{_WIDTH / 2:g}" cy="{_HEIGHT / 2:g}" rx="{2 * scale:g}" ry="{scale:g}" '
        'fill-opacity="0"/>'
    )
    ra, dec = _galactic_plane()
    jump = int(np.argmax(np.abs(np.diff(ra)))) + 1  # where it leaves the map at one side and comes back at the other
    ra, dec = np.roll(ra, -jump), np.roll(dec, -jump)
    lines.append(_path("plane", ra, dec))
    for hour in (4, 8, 12, 16, 20):
        (x,), (y,) = _places([hour * 15.0], [0.0])
        lines.append(f'<text x="{x + 3:.1f}" y="{y - 4:.1f}">{hour} h</text>')
    for degrees in (-60, -30, 30, 60):
        (x,), (y,) = _places([360.0], [degrees])
        lines.append(f'<text x="{x - 4:.1f}" y="{y + 4:.1f}" text-anchor="end">{degrees:+d}°</text>')
    return "".join(lines)


def _path(kind: str, ra: npt.NDArray[np.float64], dec: npt.NDArray[np.float64]) -> str:
    x, y = _places(ra, dec)
    return f'<path class="{kind}" d="M{"L".join(f"{a:.1f} {b:.1f}" for a, b in zip(x, y, strict=True))}"/>'


def _galactic_plane() -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return points of the great circle whose pole is the Galaxy's, in degrees."""
    ra, dec = np.radians(_POLE)
    node = np.array([-np.sin(ra), np.cos(ra), 0.0])
    pole = np.array([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)])
    turn = np.linspace(0, 2 * np.pi, 361)[:-1, None]
    points = np.cos(turn) * node + np.sin(turn) * np.cross(pole, node)
    return np.degrees(np.arctan2(points[:, 1], points[:, 0])) % 360, np.degrees(np.arcsin(points[:, 2]))

"""Wherever targets are: each is in one pixel, pixels cover the sky, and margins have all within the radius."""

import hpgeom
import numpy as np
from helpers.profiles import examples
from hypothesis import example, given, settings
from hypothesis import strategies as st

from deployments.sandbox.heasarc import offset
from lake.export.healpix import FINEST, finest_order, margins, partitions
from lake.science.sky import HPX_PIXELS, hpx29

# Poles, edges of base pixels and of others, and RA 0 more often than chance would have them.
RA = st.one_of(st.floats(0, 360, exclude_max=True), st.sampled_from([0.0, 45.0, 90.0, 180.0, 270.0, 359.9999999]))
DEC = st.one_of(st.floats(-90, 90), st.sampled_from([-90.0, -41.8103149, 0.0, 41.8103149, 90.0]))
# A cluster: a centre, and how far from it, in arcsec.
CLUSTERS = st.lists(
    st.tuples(RA, DEC, st.sampled_from([0.0, 1.0, 30.0, 3e4]), st.integers(1, 12)), min_size=1, max_size=6
)
RADIUS = st.one_of(st.sampled_from([0.5, 1.0, 10.0, 60.0, 3600.0]), st.floats(0.01, 3600))


def sky(clusters):
    """Positions of clusters, sorted along the sky."""
    ra, dec = [], []
    for number, (centre_ra, centre_dec, size, count) in enumerate(clusters):
        rng = np.random.default_rng(number)
        east, north = offset(
            np.tile((centre_ra, centre_dec), (count, 1)),
            rng.uniform(0, 1, count) * size / 3600,
            rng.uniform(0, 360, count),
        )
        ra, dec = np.append(ra, np.atleast_1d(east) % 360), np.append(dec, np.atleast_1d(north))
    order = np.argsort(hpx29(ra, dec), kind="stable")
    return ra[order], dec[order], hpx29(ra, dec)[order]


@given(CLUSTERS, st.integers(1, 40), st.integers(0, FINEST), st.data())
def test_each_target_is_in_exactly_one_pixel(clusters, limit, finest, data):
    _, _, pixels = sky(clusters)
    weights = np.array(data.draw(st.lists(st.integers(0, 30), min_size=len(pixels), max_size=len(pixels))))
    parts = partitions(pixels, weights, limit, finest)
    # They cover the sky from its first pixel to its last, without gap and overlap.
    edges = [parts[0].pixel.low, *(part.pixel.high for part in parts)]
    assert edges[0] == 0
    assert edges[-1] == HPX_PIXELS
    assert [part.pixel.low for part in parts] == edges[:-1]
    assert [row for part in parts for row in range(part.first, part.last)] == list(range(len(pixels)))
    for part in parts:
        inside = pixels[part.first : part.last]
        assert ((inside >= part.pixel.low) & (inside < part.pixel.high)).all()
        heavy = weights[part.first : part.last].sum() > limit
        assert not heavy or len(inside) == 1 or part.pixel.order == finest
        # No pixel is smaller than it must be: its parent was too heavy.
        if part.pixel.order:
            parent = [one for one in parts if one.pixel.low >> 2 == one.pixel.low >> 2]
            assert len(parent) > 1


@example([(45.0, 90.0, 1.0, 3), (45.0, 0.0, 1.0, 3)], 1, 10.0)
@settings(max_examples=examples(16))
@given(CLUSTERS, st.integers(1, 20), RADIUS)
def test_margins_are_complete_to_the_radius(clusters, limit, radius):
    ra, dec, pixels = sky(clusters)
    parts = partitions(pixels, np.ones(len(pixels), np.int64), limit, finest_order(radius))
    found = margins(pixels, ra, dec, parts, radius)
    lows = np.array([part.pixel.low for part in parts])
    of = [set(rows.tolist()) for rows in found]
    own = np.searchsorted(lows, pixels, side="right") - 1
    for part, rows in enumerate(found):
        assert not (own[rows] == part).any()
    # All points around all targets in one go: row, part of the radius, angle.
    angles = np.tile(np.arange(0, 360, 7.5), 2 * len(pixels))
    row = np.repeat(np.arange(len(pixels)), len(angles) // len(pixels))
    far = np.tile(np.repeat([0.999999, 0.5], len(angles) // len(pixels) // 2), len(pixels))
    east, north = offset(np.column_stack((ra[row], dec[row])), far * radius / 3600, angles)
    at = np.searchsorted(lows, hpx29(east % 360, north), side="right") - 1
    for target, part in set(zip(row[at != own[row]].tolist(), at[at != own[row]].tolist(), strict=True)):
        assert target in of[part], "a point within the radius is in that pixel"
    # Pixels of a thirtieth of the radius: a circle is a few thousand of them, and not ten million.
    order = int(np.clip(np.log2(30 * np.degrees(1.02) * 3600 / radius), 0, 16))
    beneath = 2 * (29 - order)
    for part, rows in zip(parts, found, strict=True):
        assert (np.diff(rows) > 0).all()
        for row in rows:
            near = hpgeom.query_circle(2**order, ra[row], dec[row], (1.6 * radius + 5) / 3600, inclusive=True)
            edges = near.astype(np.int64) << beneath
            assert ((edges < part.pixel.high) & (edges + (1 << beneath) > part.pixel.low)).any(), (
                "far beyond the radius"
            )

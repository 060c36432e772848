"""Ways to hold labels out: regions, groups, years, folds that match an area, or groups at random."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import shapely

from geoemb_xr.comparing import knndm
from geoemb_xr.comparing.residuals import Range
from geoemb_xr.core import areas, geometry
from geoemb_xr.core.errors import EmbeddingError
from geoemb_xr.core.geometry import EARTH_RADIUS, on_sphere
from geoemb_xr.geo import places, polygons
from geoemb_xr.probes import validation
from geoemb_xr.probes.heads import Data

SplitName = Literal["blocks", "random", "groups", "regions", "years", "places_years", "knndm"]
SPLITS: tuple[SplitName, ...] = (
    "knndm", "blocks", "regions", "groups", "places_years", "years", "random",
)  # fmt: skip
#: What a score of each split tells.
ANSWERS: Mapping[str, str] = {
    "blocks": "transfer: how good are predictions beyond the blocks that have labels?",
    "groups": "transfer: how good are predictions for a group (group=) without labels?",
    "regions": "transfer: how good are predictions in a region (by=) without labels?",
    "years": "transfer in time: how good are predictions in a year without labels, at places with labels?",
    "places_years": "transfer in place and time: how good are predictions where neither place nor year has labels?",
    "knndm": "the map of the domain: how good are predictions as far from labels as the domain's pixels are?",
    "random": "optimistic for transfer: how good are predictions between labels, with neighbours among them?",
}
WEIGHTED = "the map's accuracy: how good are predictions in the area of the probability sample (design=)?"
#: Regions that differences between products are told from where a split has none of its own.
REGIONS = 20
#: Metres of the mean radius of the earth; places all over the area of a domain.
_DOMAIN_PLACES = 2000


@dataclass(frozen=True)
class Split:
    """Folds, and the least distance between training and test samples.

    Parameters
    ----------
    name : str
        One of :data:`SPLITS`.
    folds : ndarray of int (n,)
        Fold of each sample.
    buffer : float
        Metres around test samples from which no training sample is taken.
    units : ndarray of int (n,), optional
        Units that differences and intervals are computed from: blocks, regions or groups.
    years : ndarray of int (n,), optional
        With them a test set is one fold in one year, and neither the fold nor the year is trained on.
    facts : mapping
        Facts about how the folds were made: ``side_m``, ``range_m``, ``w_m``, ``note``.
    """

    name: str
    folds: np.ndarray
    buffer: float
    units: np.ndarray | None = None
    years: np.ndarray | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    def tests(self) -> np.ndarray:
        """The test set that each sample belongs to (n,)."""
        if self.years is None:
            return self.folds
        return np.unique(np.column_stack([self.folds, self.years]), axis=0, return_inverse=True)[1].reshape(
            -1
        )

    def parts(self, metres: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Training and test samples of each test set."""
        from scipy.spatial import cKDTree

        tests = self.tests()
        for number in range(int(tests.max()) + 1):
            test = np.flatnonzero(tests == number)
            apart = self.folds != self.folds[test[0]]
            if self.years is not None:
                apart &= self.years != self.years[test[0]]
            train = np.flatnonzero(apart)
            if self.buffer > 0 and len(train):
                train = train[cKDTree(metres[test]).query(metres[train])[0] > self.buffer]
            yield train, test


@dataclass(frozen=True)
class SplitGround:
    """The places, groups and times that splits are made from.

    Parameters
    ----------
    data : Data
        Labels with places and groups; the vectors do not matter.
    lonlat : ndarray (n, 2)
        Places in degrees.
    k : int
        Number of folds.
    buffer : float
        Metres: the largest footprint and that of a label.
    by : ndarray (n,)
        Values that ``"regions"`` leaves out; empty where there are none.
    years : ndarray of int (n,)
        Year of each label; empty where there are none.
    reach : Range or None
        Distance in metres up to which residuals are alike.
    domain : ndarray (m, 3) or None
        Places all over the area to be mapped.
    """

    data: Data
    lonlat: np.ndarray
    k: int
    buffer: float
    by: np.ndarray
    years: np.ndarray
    reach: Range | None
    domain: np.ndarray | None

    def split(self, name: str) -> Split:
        """Folds by name.

        Raises
        ------
        EmbeddingError
            If there are too few places, groups or years.
        """
        makers = {
            "random": self._random,
            "groups": lambda: self._left_out("groups", self.data.groups),
            "regions": lambda: self._left_out("regions", np.unique(self.by, return_inverse=True)[1]),
            "blocks": self._blocks,
            "years": lambda: Split("years", self._known_years("years"), 0.0, self._regions()),
            "places_years": self._places_years,
            "knndm": self._knndm,
        }
        return makers[name]()

    def blocks(self) -> np.ndarray:
        """The block of each label, over which intervals are bootstrapped whatever the split leaves out."""
        units, _ = self._sized()
        return np.zeros(len(self.data.y), np.int64) if units is None else units

    def _random(self) -> Split:
        folds = validation.random_folds(self.data, self.k)
        if folds is None:
            raise self._too_few("random", "the labels are of one group")
        return Split("random", folds, 0.0, self._regions())

    def _left_out(self, name: str, units: np.ndarray) -> Split:
        """One unit at a time; where there are many, they share folds."""
        folds = np.unique(units, return_inverse=True)[1]
        if not folds.max():
            raise self._too_few(name, "the labels are of one group")
        note = ""
        if int(folds.max()) >= 2 * self.k:
            dealt = validation.dealt(folds, self.data, self.k)
            assert dealt is not None
            note = f"{int(folds.max()) + 1} groups share {int(dealt.max()) + 1} folds"
            return Split(name, dealt, self.buffer, folds, facts={"note": note})
        return Split(name, folds, self.buffer, folds)

    def _blocks(self) -> Split:
        units, facts = self._sized()
        folds = None if units is None else validation.dealt(units, self.data, self.k)
        if folds is None:
            raise self._too_few("blocks", "the labels lie at too few places")
        return Split("blocks", folds, self.buffer, units, facts=facts)

    def _sized(self) -> tuple[np.ndarray | None, dict[str, Any]]:
        """Blocks as wide as the range of autocorrelation; twenty regions where that is not known."""
        regions = self._regions()
        if self.reach is None or self.reach.metres is None or regions is None:
            why = "no residuals" if self.reach is None else self.reach.note
            return regions, {"note": f"range of autocorrelation not identified ({why}): regions by k-means"}
        side = reach = max(self.reach.metres, self.buffer, 1.0)
        least = min(2 * self.k, int(regions.max()) + 1)
        units = squares(self.lonlat, side, self.data.groups)
        while int(units.max()) + 1 < least:
            side *= 0.8
            units = squares(self.lonlat, side, self.data.groups)
        facts: dict[str, Any] = {"side_m": side, "range_m": self.reach.metres}
        if side < reach:
            facts["note"] = f"capped: blocks as wide as the range would be fewer than {least}"
        return units, facts

    def _places_years(self) -> Split:
        years = self._known_years("places_years")
        blocks = self._blocks()
        return Split(
            "places_years", blocks.folds, blocks.buffer, blocks.units, years=years, facts=blocks.facts
        )

    def _known_years(self, name: str) -> np.ndarray:
        if len(np.unique(self.years)) < 2:
            raise self._too_few(name, "the labels are of one year (time= names the column of dates)")
        return np.unique(self.years, return_inverse=True)[1]

    def _knndm(self) -> Split:
        assert self.domain is not None
        assert self.data.places is not None
        found = knndm.matched_folds(self.data.places, self.data.groups, self.domain, self.k, self.data.seed)
        note = f"W is {found.w_random:,.0f} m with random folds"
        if found.random:
            note = "the labels are spread like a random sample of the domain: random folds"
        return Split("knndm", found.folds, 0.0, self._regions(), facts={"w_m": found.w, "note": note})

    def _regions(self) -> np.ndarray | None:
        return validation.regions_of(self.data, REGIONS)

    def _too_few(self, name: str, why: str) -> EmbeddingError:
        return EmbeddingError(f"splits={name!r} cannot part the {len(self.data.y)} labels: {why}")


def squares(lonlat: np.ndarray, side: float, groups: np.ndarray) -> np.ndarray:
    """Number of the square block, of that side in metres, that the centre of each sample's group lies in."""
    lon, lat = np.radians(lonlat).T
    lon = lon[0] + np.angle(np.exp(1j * (lon - lon[0])))  # in one piece across the antimeridian
    counts = np.bincount(groups)
    with np.errstate(invalid="ignore"):
        lon, lat = ((np.bincount(groups, each) / counts)[groups] for each in (lon, lat))
    row = np.floor(lat * EARTH_RADIUS / side)
    col = np.floor(lon * np.cos((row + 0.5) * side / EARTH_RADIUS) * EARTH_RADIUS / side)
    return np.unique(np.column_stack([row, col]), axis=0, return_inverse=True)[1].reshape(-1)


def domain_places(domain: Any) -> np.ndarray:
    """Places all over an area (m, 3): a regular grid of equal areas.

    Parameters
    ----------
    domain : bbox, polygons, GeoBox or array with y and x
        The area to be mapped; numbers are longitude and latitude.

    Raises
    ------
    EmbeddingError
        If it is not an area.
    """
    parts = [shapely.box(*box) for box in _area(domain).lonlat()] if _is_box(domain) else _polygons(domain)
    shape = polygons.union(np.array(parts, dtype=object))
    west, south, east, north = np.radians(shape.bounds)
    if not shape.area > 0:
        raise EmbeddingError(
            "domain= is an area to be mapped: a bbox, polygons or an array; got one without area"
        )
    wide, high = east - west, np.sin(north) - np.sin(south)
    share = shape.area / shapely.box(*shape.bounds).area
    step = np.sqrt(wide * high / (_DOMAIN_PLACES / share))
    sines = np.sin(south) + high * (np.arange(max(round(high / step), 1)) + 0.5) / max(round(high / step), 1)
    lons = west + wide * (np.arange(max(round(wide / step), 1)) + 0.5) / max(round(wide / step), 1)
    lon, lat = (each.ravel() for each in np.meshgrid(np.degrees(lons), np.degrees(np.arcsin(sines))))
    shapely.prepare(shape)
    inside = shapely.contains_xy(shape, lon, lat)
    if not inside.any():
        point = shape.representative_point()
        return on_sphere(np.array([[point.x, point.y]]))
    return on_sphere(np.column_stack([lon, lat])[inside])


def _is_box(domain: Any) -> bool:
    numbers = isinstance(domain, Sequence) and len(domain) == 4 and not isinstance(domain, str)
    return numbers or hasattr(domain, "boundingbox") or hasattr(domain, "dims")


def _area(domain: Any) -> areas.Area:
    if isinstance(domain, Sequence):
        return areas.parse_bbox(domain)
    grid = domain if hasattr(domain, "boundingbox") else geometry.geobox_of(domain, "evaluate: domain")
    return areas.area_of(grid)


def _polygons(domain: Any) -> list[Any]:
    return list(places.polygons_of(domain, geometry.LONLAT, geometry.as_crs(geometry.LONLAT)))

"""Rows that touch an area, and row groups that may hold one, against brute force around the antimeridian."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoemb_xr.core import areas
from geoemb_xr.core.errors import CoverageError
from geoemb_xr.stores import index
from geoemb_xr.stores.pruning import boxes_of_rows, is_inside, touching

#: Quarters of a degree, close to ±180 more often than not; a row may cross, and may be written on past 180.
WEST = st.one_of(st.integers(-720, 719), st.integers(-724, -712), st.integers(712, 719)).map(lambda n: n / 4)
ROW = st.builds(
    lambda west, width, on: (west, west + width / 4 - (360.0 if west + width / 4 > 180 and not on else 0.0)),
    WEST,
    st.integers(1, 40),
    st.booleans(),
)


def places(west, east):
    """The eighths of a degree inside an arc."""
    east = east if east >= west else east + 360
    return {n % 2880 for n in range(round(west * 8) + 1, round(east * 8))}


@given(st.lists(ROW, min_size=1, max_size=8), ROW)
def test_a_row_group_that_holds_a_row_of_the_area_is_never_left_out(rows, area):
    west, east = np.array(rows).T
    bounds = np.stack([west, np.zeros(len(rows)), east, np.ones(len(rows))], axis=1)
    expected = [bool(places(*row) & places(*area)) for row in rows]
    box = (area[0], 0.25, area[1], 0.75)
    assert touching(bounds, [box], degrees=True, edges=False).tolist() == expected
    around = boxes_of_rows(
        (west.min(), west.max()), (0.0, 0.0), (east.min(), east.max()), (1.0, 1.0), degrees=True
    )
    if any(expected):
        assert touching(np.array(around), [box], degrees=True).any()
    if all(is_inside(each, [box], degrees=True) for each in around):
        assert all(expected)


def test_rows_in_metres_lie_on_no_circle():
    rows = np.array([[0.0, 0.0, 10.0, 10.0], [360.0, 0.0, 370.0, 10.0]])
    assert touching(rows, [(2.0, 2.0, 3.0, 3.0)], degrees=False).tolist() == [True, False]
    assert boxes_of_rows((0.0, 360.0), (0.0, 0.0), (10.0, 370.0), (10.0, 10.0), degrees=False) == (
        (0.0, 0.0, 370.0, 10.0),
    )


BBOX = ("west", "south", "east", "north")


@pytest.fixture
def table(tmp_path):
    """Four row groups: two far away, one whose rows straddle ±180, one east of it."""
    pq = pytest.importorskip("pyarrow.parquet")
    rows = [
        ("a0", 10.0, 11.0), ("a1", 11.0, 12.0),
        ("b0", 179.95, 180.0), ("b1", 179.9, -179.9),
        ("c0", -179.9, -179.5), ("c1", -179.5, -179.0),
        ("d0", 60.0, 61.0), ("d1", 61.0, 62.0),
    ]  # fmt: skip
    frame = pd.DataFrame(
        {"path": [r[0] for r in rows], "west": [r[1] for r in rows], "south": 0.0}
        | {"east": [r[2] for r in rows], "north": 1.0, "year": 2024}
    )
    import pyarrow as pa

    pq.write_table(pa.Table.from_pandas(frame), tmp_path / "index.parquet", row_group_size=2)
    return str(tmp_path / "index.parquet")


def found(table, box, **options):
    area = areas.parse_bbox((box[0], 0.2, box[1], 0.8))
    rows = index.read_index(table, columns=["path"], area=area, bbox=BBOX, time=None, year="year", **options)
    return list(rows["path"])


@pytest.mark.parametrize(
    ("box", "expected", "groups"),
    [
        ((-179.95, -179.92), ["b1"], [1]),
        ((179.96, 179.97), ["b0", "b1"], [1]),
        ((179.96, -179.6), ["b0", "b1", "c0"], [1, 2]),
        ((180.06, 180.3), ["b1", "c0"], [1, 2]),
        ((10.5, 10.6), ["a0"], [0]),
        ((61.5, 63.0), ["d1"], [3]),
    ],
)
def test_only_the_row_groups_of_an_area_are_read(table, box, expected, groups, monkeypatch):
    read, whole = [], index._IndexFile.read

    def counting(self, group, wanted):
        read.append(group)
        return whole(self, group, wanted)

    monkeypatch.setattr(index._IndexFile, "read", counting)
    assert found(table, box) == expected
    assert read == groups


def test_rows_of_centres_are_widened_across_the_antimeridian(table):
    assert found(table, (-178.98, -178.9), margin=0.05) == ["c1"]
    with pytest.raises(CoverageError, match="no tile touches"):
        found(table, (-178.98, -178.9))
    with pytest.raises(CoverageError, match="no tile touches"):  # an edge alone is no overlap
        found(table, (12.0, 13.0))

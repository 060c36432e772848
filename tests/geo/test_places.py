"""The gate: whatever holds points or areas means the same everywhere, and gaps are counted."""

import json

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyogrio
import pytest
import shapely
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import geoemb_xr as gx
from geoemb_xr.core import areas
from geoemb_xr.core.errors import CoverageError, EmbeddingError, MissingFileError, SourceError
from geoemb_xr.geo.places import positions_on, read_places

LON, LAT = [11.37, 11.3702], [47.25, 47.2503]
FRAME = gpd.GeoDataFrame({"crop": ["oats", "rye"]}, geometry=gpd.points_from_xy(LON, LAT), crs=4326)
POINTS = [shapely.Point(pair) for pair in zip(LON, LAT, strict=True)]
UTM = FRAME.to_crs(32632)
METRES = pd.DataFrame({"Easting": UTM.geometry.x, "Northing": UTM.geometry.y})
METRES.attrs["crs"] = "EPSG:32632"
SPELLINGS = [("lon", "lat"), ("Longitude", "LATITUDE"), ("lng", "lat"), ("decimalLongitude", "decimalLatitude"),
             ("x", "y"), ("X", "Y"), ("POINT_X", "POINT_Y"), ("lon_dd", "lat_dd"),
             ("Longitude (deg)", "Latitude (°)"), ("plotLon", "plotLat"), ("plot_long", "plot_lat")]  # fmt: skip


class Wrapped:
    """What other packages give: an object that says its GeoJSON."""

    def __init__(self, geojson):
        self.__geo_interface__ = geojson


WAYS = {
    "pairs": list(zip(LON, LAT, strict=True)),
    "array": np.column_stack([LON, LAT]),
    "shapely": POINTS,
    "MultiPoint": shapely.MultiPoint(POINTS),
    "GeoSeries": FRAME.geometry,
    "GeoDataFrame": FRAME,
    "another CRS": FRAME.to_crs(3035),
    "dict": {"lon": LON, "lat": LAT},
    "records": [{"lon": a, "lat": b} for a, b in zip(LON, LAT, strict=True)],
    "GeoJSON": json.loads(FRAME.to_json()),
    "features": json.loads(FRAME.to_json())["features"],
    "geometry": json.loads(shapely.to_geojson(shapely.MultiPoint(POINTS))),
    "WKT": pd.DataFrame({"wkt": [p.wkt for p in POINTS]}),
    "WKB": pd.DataFrame({"geometry": [p.wkb for p in POINTS]}),
    "Earth Engine": pd.DataFrame({".geo": [shapely.to_geojson(p) for p in POINTS]}),
    "a list of WKT": [p.wkt for p in POINTS],
    "a list of WKB": [p.wkb for p in POINTS],
    "a text of WKT": shapely.MultiPoint(POINTS).wkt,
    "a text of GeoJSON": FRAME.to_json(),
    "metres": METRES,
    "nullable": pd.DataFrame({"lon": pd.array(LON, "Float64"), "lat": pd.array(LAT, "Float64")}),
    "texts": pd.DataFrame({"lon": list(map(str, LON)), "lat": list(map(str, LAT))}),
    "GeometryArray": FRAME.geometry.values,
    "GeometryCollection": shapely.GeometryCollection(POINTS),
    "PostGIS, WKT": [f"SRID=32632;{p.wkt}" for p in UTM.geometry],
    "PostGIS, WKB": {
        "geom": [shapely.to_wkb(shapely.set_srid(p, 32632), True, include_srid=True) for p in UTM.geometry]
    },
    "index": pd.DataFrame(
        {"crop": ["oats", "rye"]}, pd.MultiIndex.from_arrays([LAT, LON], names=["lat", "lon"])
    ),
    "an object": Wrapped(json.loads(FRAME.to_json())),
    "objects": [Wrapped(each) for each in json.loads(FRAME.to_json())["features"]],
    "Arrow": pa.Table.from_pandas(pd.DataFrame({"lon": LON, "lat": LAT})),
    **{f"{a}, {b}": pd.DataFrame({a: LON, b: LAT}) for a, b in SPELLINGS},
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_of_writing_points_is_the_same_place(way):
    found = read_places(WAYS[way])
    np.testing.assert_allclose(np.column_stack(found.xy(4326)), np.column_stack([LON, LAT]), atol=1e-7)


FILES = ("a.csv", "A b.CSV", "a.csv.gz", "semicolons.csv", "days.csv", "excel.txt", "a.parquet", "b.parquet",
         "a.feather", "b.feather", "a.geojson", "a.geojsonl", "a.gpkg", "a.fgb", "a.shp")  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_files_are_read(tmp_path, name):
    path = tmp_path / name
    table = pd.DataFrame({"crop": ["oats", "rye"], "lon": LON, "lat": LAT})
    match name:
        case "a.csv" | "A b.CSV" | "a.csv.gz":
            table.to_csv(path, index=False)
        case "semicolons.csv":
            table.to_csv(path, index=False, sep=";", decimal=",", encoding="utf-8-sig")
        case "days.csv":  # a date with points beside decimal commas
            dated = table.assign(day="01.05.2018")
            dated.to_csv(path, index=False, sep=";", decimal=",")
        case "excel.txt":
            table.to_csv(path, index=False, sep="\t", encoding="utf-16")
        case "a.feather":
            table.to_feather(path)
        case "b.feather":
            FRAME.to_feather(path)
        case "a.parquet":
            table.to_parquet(path)
        case "b.parquet":
            FRAME.to_parquet(path)
        case _:
            FRAME.to_file(path)
    for given_path in (path, str(path), path.as_uri()):
        found = read_places(given_path)
        np.testing.assert_allclose(np.sort(found.xy(4326)), [LON, LAT])  # FlatGeobuf sorts
        assert sorted(found.riding()[1]["crop"]) == ["oats", "rye"]


def test_an_array_of_points_gives_its_places():
    da = gx.testing.synthetic("alphaearth", shape=(64, 64)).emb.year(2018)
    one = da.emb.sample(FRAME)
    np.testing.assert_array_equal(da.emb.sample(one).values, one.values)


def test_a_row_of_a_table_is_one_place():
    (row,) = pd.DataFrame({"crop": ["oats"], "lon": LON[:1], "lat": LAT[:1]}).iterrows()
    found = read_places(row[1])
    np.testing.assert_allclose(np.column_stack(found.xy(4326)), [[LON[0], LAT[0]]])
    assert read_places(FRAME.geometry.set_axis([7, 9]).astype(object)).riding()[0].tolist() == [7, 9]


def test_geometries_of_several_crss_are_refused():
    with pytest.raises(EmbeddingError, match=r"several CRSs, \[3035, 32632\]"):
        read_places(["SRID=32632;POINT (0 0)", "SRID=3035;POINT (0 0)"])


def test_a_table_of_ours_goes_back_in():
    da = gx.testing.synthetic("alphaearth", shape=(64, 64)).emb.year(2018)
    one = da.emb.sample(FRAME)
    table = one.emb.to_dataframe()
    assert table.attrs["crs"] == "EPSG:32632"
    np.testing.assert_array_equal(da.emb.sample(table).values, one.values)


def test_what_mending_leaves_of_a_polygon_is_one():
    mended = shapely.GeometryCollection([AREA, shapely.LineString([(11.3, 47.2), (11.4, 47.3)])])
    assert shapely.equals(read_places(mended).polygons(4326)[0], AREA)


def test_all_verbs_take_the_same():
    da = gx.testing.synthetic("alphaearth", shape=(64, 64)).emb.year(2018)
    expected = da.emb.sample(FRAME).values
    for way in ("shapely", "GeoJSON", "metres", "dict"):
        np.testing.assert_array_equal(da.emb.sample(WAYS[way]).values, expected)
        xr.testing.assert_identical(da.emb.similarity(WAYS[way]), da.emb.similarity(FRAME))
    opened = gx.open("alphaearth", gx.example("alphaearth"), points=POINTS, time=2018)
    assert opened.sizes["location"] == 2


AREA = shapely.box(11.3690, 47.2490, 11.3700, 47.2500)
AREA_WAYS = {
    "a text of WKT": AREA.wkt,
    "shapely": AREA,
    "list": [AREA],
    "GeoSeries": gpd.GeoSeries([AREA], crs=4326),
    "GeoDataFrame": gpd.GeoDataFrame(geometry=[AREA], crs=4326),
    "GeoJSON": AREA.__geo_interface__,
    "Feature": {"type": "Feature", "properties": {}, "geometry": AREA.__geo_interface__},
    "collection": json.loads(gpd.GeoSeries([AREA], crs=4326).to_json()),
    "WKT": {"geometry": [AREA.wkt]},
    "collection of shapes": shapely.GeometryCollection([AREA]),
    "WKB in digits": AREA.wkb_hex,
}


@pytest.mark.parametrize("way", AREA_WAYS)
def test_every_way_of_writing_areas_is_the_same_area(way):
    da = gx.testing.synthetic("alphaearth", shape=(64, 64)).emb.year(2018)
    xr.testing.assert_identical(da.emb.crop(AREA_WAYS[way]), da.emb.crop(AREA))
    xr.testing.assert_identical(da.emb.zonal_stats(AREA_WAYS[way]).drop_vars("location").compute(),
                                da.emb.zonal_stats(AREA).drop_vars("location").compute())  # fmt: skip


def test_tables_keep_the_crs_of_their_geometries():
    frame = gpd.GeoDataFrame({"lon": [0.0], "lat": [0.0]}, geometry=[AREA], crs=4326).to_crs(3035)
    expected = read_places(frame).polygons(4326)
    for same in (
        pd.DataFrame(frame),
        gpd.GeoDataFrame({"lon": [0.0], "lat": [0.0], "field": frame.geometry}),
    ):
        assert shapely.equals(read_places(same).polygons(4326), expected).all()


TWO = gpd.GeoDataFrame({"name": ["a"]}, geometry=[AREA], crs=4326)
NO_AREAS = {
    "two columns of one name, \\['name'\\]": pd.concat([TWO, TWO[["name"]]], axis=1),
    "row 0 has a corner that is NaN": shapely.Polygon([(11.369, 47.249), (np.nan, 47.25), (11.37, 47.249)]),
    "row 0 has no geometry that can be read: Nonlinear": "CURVEPOLYGON (CIRCULARSTRING (0 0, 1 1, 2 0, 1 -1, 0 0))",
    "got none": [],
    "got points": POINTS,
    "got \\['Point', 'Polygon'\\]": [AREA, POINTS[0]],
    "got \\['LineString'\\]": shapely.LineString(POINTS),
    "look like metres": TWO.to_crs(32632).set_crs(None, allow_override=True),
}


@pytest.mark.filterwarnings("ignore:invalid value encountered")  # in linearrings of shapely, of NaN
@pytest.mark.parametrize("verb", ["crop", "zonal_stats"])
def test_what_is_no_area_is_refused_in_words(verb):
    da = gx.testing.synthetic("alphaearth", shape=(64, 64)).emb.year(2018)
    for match, area in NO_AREAS.items():
        with pytest.raises(EmbeddingError, match=match):
            getattr(da.emb, verb)(area)


def test_folders_of_parquet_and_of_gdal_are_tables_and_others_are_named(tmp_path):
    folder = tmp_path / "areas.parquet"
    folder.mkdir()
    for part in "ab":
        TWO.to_parquet(folder / f"{part}.parquet")
    assert len(read_places(folder)) == 2
    TWO.to_file(tmp_path / "areas.gdb", driver="OpenFileGDB")
    assert len(read_places(tmp_path / "areas.gdb")) == 1
    with pytest.raises(SourceError, match="got a folder"):
        read_places(tmp_path)


def test_open_takes_the_same_areas():
    source = gx.example("alphaearth")
    expected = gx.open("alphaearth", source, geopolygon=AREA, time=2018)
    for way in ("GeoDataFrame", "Feature", "WKT"):
        found = gx.open("alphaearth", source, geopolygon=AREA_WAYS[way], time=2018)
        xr.testing.assert_identical(found.coords.to_dataset(), expected.coords.to_dataset())


# --- what is missing ------------------------------------------------------------------------------------------


def test_points_without_a_place_are_left_out_and_zones_are_nan(caplog):
    da = gx.testing.synthetic("alphaearth", shape=(64, 64)).emb.year(2018)
    frame = gpd.GeoDataFrame(
        {"crop": list("abcd")}, geometry=[POINTS[0], None, shapely.Point(), POINTS[1]], crs=4326
    )
    with caplog.at_level("INFO"):
        found = da.emb.sample(frame)
    assert found.crop.values.tolist() == ["a", "d"]
    assert found.location.values.tolist() == [0, 3]
    assert "leaves out 2 of 4 rows" in caplog.text
    table = pd.DataFrame({"lon": [LON[0], np.nan, np.inf], "lat": [LAT[0], 47.0, 47.0]})
    assert da.emb.sample(table).location.values.tolist() == [0]
    assert (
        da.emb.sample(table.to_numpy()).sizes["location"] == 3
    )  # of bare pairs the position is all there is
    zones = da.emb.zonal_stats(gpd.GeoSeries([AREA, None, shapely.Polygon()], index=list("abc"), crs=4326))
    assert np.isfinite(zones.values).all(axis=1).tolist() == [True, False, False]
    assert np.isnan(zones.x.values).tolist() == [False, True, True]
    for verb in (da.emb.sample, da.emb.zonal_stats, da.emb.crop, da.emb.similarity):
        with pytest.raises(EmbeddingError, match="none of the 2 rows of the table has a geometry"):
            verb(gpd.GeoSeries([None, None], crs=4326))


@pytest.mark.parametrize(
    ("given_points", "match"),
    [
        (pd.DataFrame(METRES.to_numpy(), columns=["x", "y"]),
         r"row 0: \(\d{6}.*look like metres.*table\.attrs"),
        (gpd.GeoDataFrame(geometry=UTM.geometry.to_numpy(), crs=4326),
         "said to be in EPSG:4326, but look like metres"),
        ([(47.25, 111.3)], "longitude comes first"),
        (pd.concat([pd.DataFrame({"lon": LON, "lat": LAT})] * 2, axis=1),
         r"two columns of one name, \['lat', 'lon'\]"),
        (pd.DataFrame({"a": [1]}), r"needs columns 'lon' and 'lat'.*got \['a'\]"),
        ({"lon": ["11,37"], "lat": [47.2]}, "'lon' has no number in row 0: '11,37'"),
        ({"lon": [1, 2], "lat": [3]}, "columns of one length"),
        (gpd.GeoSeries([shapely.MultiPoint(POINTS)], crs=4326), "row 0 is a MultiPoint of 2 points"),
        ([shapely.LineString(POINTS)], r"points or areas are polygons; got \['LineString'\]"),
        (["Wien"], "points are pairs"),
        (None, "points are pairs.*got NoneType None"),
        ({"geometry": ["POINT (1"]}, "row 0 has no geometry that can be read"),
    ],
)  # fmt: skip
def test_what_is_no_place_is_refused_in_words(given_points, match):
    with pytest.raises(EmbeddingError, match=match):
        read_places(given_points)


def test_files_that_are_none_are_named(tmp_path):
    with pytest.raises(SourceError, match=r"no such file.*nowhere"):
        read_places("nowhere.csv")
    (tmp_path / "a.xlsx").write_text("")
    with pytest.raises(SourceError, match=r"\.xlsx are not read"):
        read_places(tmp_path / "a.xlsx")
    (tmp_path / "a.csv").write_bytes("lon,lat,Fläche\n11,47,1\n".encode("latin-1"))
    with pytest.raises(SourceError, match=r"a\.csv is not encoded in UTF-8 .* save it so"):
        read_places(tmp_path / "a.csv")
    (tmp_path / "a.geojson").write_text("{")
    with pytest.raises(SourceError, match=r"a\.geojson cannot be read"):
        read_places(tmp_path / "a.geojson")


def test_columns_stay_what_they_are():
    table = pd.DataFrame({"lon": LON, "lat": LAT,
        "gap": pd.array([1, None], "Int64"), "whole": pd.array([1, 2], "Int64"),
        "flag": pd.array([True, None], "boolean"),
        "kind": pd.Categorical([3, None]), "text": pd.array(["a", None], "string"),
        "share": pd.array([0.5, None], "Float64"), "when": pd.to_datetime(["2018-01-01T01:00+01:00", None]),
    })  # fmt: skip
    _, columns = read_places(table).riding()
    assert {k: v.tolist() for k, v in columns.items() if k in ("gap", "whole", "flag", "kind", "text")} == {
        "gap": [1, None], "whole": [1, 2], "flag": [True, None], "kind": [3, None], "text": ["a", None]
    }  # fmt: skip
    assert columns["whole"].dtype == np.int64
    assert columns["share"].dtype == np.float64
    assert columns["when"][0] == np.datetime64("2018-01-01")


# --- around the globe -----------------------------------------------------------------------------------------

EAST_PART, WEST_PART = shapely.box(177, -18, 180, -16), shapely.box(-180, -18, -179, -16)
FIJI = {
    "two parts": shapely.MultiPolygon([EAST_PART, WEST_PART]),
    "past 180": shapely.box(177, -18, 181, -16),
    "before -180": shapely.box(-183, -18, -179, -16),
    "not cut": shapely.Polygon([(177, -18), (-179, -18), (-179, -16), (177, -16)]),
}


@pytest.mark.parametrize("way", FIJI)
def test_a_polygon_across_the_antimeridian_is_small(way):
    area = read_places(FIJI[way]).area()
    assert area.bounds == (177, -18, -179, -16)
    assert area.lonlat() == [(177, -18, 180, -16), (-180, -18, -179, -16)]
    utm = read_places(FIJI[way]).polygons(32701)[0]
    expected = shapely.union_all(read_places(FIJI["two parts"]).polygons(32701))
    assert shapely.symmetric_difference(utm, expected).area < 1e-6 * expected.area


def test_positions_are_found_a_turn_away():
    grid = gx.core.geometry.make_geobox((2, 4), areas.Affine(1.0, 0, 178.0, 0, -1.0, 1.0), 4326)
    _, columns = positions_on(grid, np.array([179.5, -179.5, 180.5]), np.zeros(3))
    np.testing.assert_allclose(columns, [1.5, 2.5, 2.5])


# --- any table, any shapes, against geopandas -------------------------------------------------------------------

DEGREES = st.floats(-180, 180).map(lambda v: round(v, 5))
PLACE = st.one_of(st.none(), st.tuples(DEGREES, st.floats(-75, 75).map(lambda v: round(v, 5))))
COLUMNS = {
    "Int64": lambda n: pd.array([None if i % 3 == 0 else i for i in range(n)], "Int64"),
    "boolean": lambda n: pd.array([None if i % 4 == 1 else i % 2 == 0 for i in range(n)], "boolean"),
    "category": lambda n: pd.Categorical([None if i % 5 == 2 else "ab"[i % 2] for i in range(n)]),
    "float": lambda n: np.arange(n) / 4,
    "text": lambda n: [f"é{i}" for i in range(n)],
}
INDEXES = {
    "range": lambda n: pd.RangeIndex(n),
    "text": lambda n: pd.Index([f"p{i}" for i in range(n)]),
    "twice": lambda n: pd.Index([i // 2 for i in range(n)]),
}


@given(
    pairs=st.lists(PLACE, min_size=1, max_size=8),
    way=st.sampled_from(["numbers", "texts", "Float64", "WKT", "WKB", "GeoJSON", "frame", "frame in metres"]),
    spelling=st.sampled_from(SPELLINGS),
    column=st.sampled_from(sorted(COLUMNS)),
    index=st.sampled_from(sorted(INDEXES)),
)
def test_tables_of_points_are_what_geopandas_makes_of_them(pairs, way, spelling, column, index):
    n = len(pairs)
    shapes = [None if pair is None else shapely.Point(pair) for pair in pairs]
    rest = {"what": COLUMNS[column](n)}
    frame = gpd.GeoDataFrame(rest, geometry=shapes, crs=4326, index=INDEXES[index](n))
    lon, lat = ([np.nan if pair is None else pair[i] for pair in pairs] for i in (0, 1))
    columns = {
        "numbers": {spelling[0]: lon, spelling[1]: lat},
        "texts": {spelling[0]: [None if v != v else str(v) for v in lon], spelling[1]: list(map(str, lat))},
        "Float64": {spelling[0]: pd.array(lon, "Float64"), spelling[1]: pd.array(lat, "Float64")},
        "WKT": {"wkt": [None if s is None else s.wkt for s in shapes]},
        "WKB": {"geometry": [None if s is None else s.wkb for s in shapes]},
        "GeoJSON": {".geo": [None if s is None else shapely.to_geojson(s) for s in shapes]},
    }
    if way in columns:
        given_table = pd.DataFrame({**rest, **columns[way]}, index=frame.index)
    else:
        given_table = frame if way == "frame" else frame.to_crs(3857)
    found = read_places(given_table)
    np.testing.assert_array_equal(found.missing, frame.geometry.isna())
    if found.missing.all():
        with pytest.raises(EmbeddingError, match=f"none of the {n} rows"):
            found.present("this")
        return
    kept, left = found.present("this"), frame[frame.geometry.notna()]
    np.testing.assert_allclose(np.stack(kept.xy(4326)), [left.geometry.x, left.geometry.y], atol=1e-6)
    in_metres = left.to_crs(6933)
    np.testing.assert_allclose(
        np.stack(kept.xy(6933)), [in_metres.geometry.x, in_metres.geometry.y], atol=0.2
    )
    places_index, riding = kept.riding()
    assert places_index.tolist() == left.index.tolist()
    expected = left["what"].astype(object).where(left["what"].notna(), None).tolist()
    assert riding["what"].tolist() == expected


@given(
    west=st.floats(-179, 190),
    south=st.floats(-60, 50),
    width=st.floats(0.1, 20),
    height=st.floats(0.1, 5),
    written=st.sampled_from(["as drawn", "two parts", "jumping"]),
    way=st.sampled_from(["shapely", "frame", "GeoJSON", "WKT"]),
)
def test_polygons_anywhere_cover_what_their_parts_cover(west, south, width, height, written, way):
    """Equal area, by the parts that geopandas projects one by one, whatever the writing."""
    whole = shapely.box(west, south, west + width, south + height)
    east_side = shapely.intersection(whole, shapely.box(-180, -90, 180, 90))
    past = shapely.intersection(
        shapely.transform(whole, lambda xy: np.subtract(xy, [360, 0])), shapely.box(-180, -90, 180, 90)
    )
    parts = [p for p in (east_side, past) if p.geom_type == "Polygon" and p.area > 1e-9]
    shape = whole
    if written == "two parts" and len(parts) == 2:
        shape = shapely.MultiPolygon(parts)
    elif written == "jumping" and len(parts) == 2 and west < 180 < west + width:
        shape = shapely.transform(whole, lambda xy: np.where([True, False] & (xy > 180), xy - 360, xy))
    given_shape = {
        "shapely": shape,
        "frame": gpd.GeoDataFrame(geometry=[shape], crs=4326),
        "GeoJSON": shape.__geo_interface__,
        "WKT": {"wkt": [shape.wkt]},
    }[way]
    found = read_places(given_shape)
    expected = gpd.GeoSeries(parts, crs=4326).segmentize(0.05).to_crs(6933).area.sum()
    area = found.area()
    held = sum((east - w) * (north - s) for w, s, east, north in area.lonlat())
    assert held == pytest.approx(width * height, rel=1e-6, abs=1e-9)
    moved = shapely.union_all(found.polygons(6933))
    if len(parts) == 1:  # one piece stays one in a CRS that is cut at 180
        assert moved.area == pytest.approx(expected, rel=1e-4)
    for part in parts:
        inside = part.representative_point()
        assert shapely.covers(
            shapely.union_all([shapely.transform(p, lambda xy, by=by: np.add(xy, [by, 0]))
                               for p in found.polygons(4326) for by in (-360, 0, 360)]), inside)  # fmt: skip


def test_a_query_may_be_a_box_and_must_not_be_empty():
    da = gx.testing.synthetic("alphaearth", shape=(64, 64)).emb.year(2018)
    xr.testing.assert_identical(da.emb.similarity(AREA.bounds), da.emb.similarity(AREA))
    for nothing in ([], FRAME.iloc[:0], pd.DataFrame({"lon": [], "lat": []})):
        with pytest.raises(EmbeddingError, match="the query has no place"):
            da.emb.similarity(nothing)


def test_a_file_of_shapes_that_names_others_is_refused(tmp_path):
    (tmp_path / "a.geojson").write_text("<OGRVRTDataSource></OGRVRTDataSource>")
    with pytest.raises(SourceError, match=r"a\.geojson is a VRT"):
        read_places(tmp_path / "a.geojson")


@pytest.mark.parametrize("ending", ["csv", "tsv", "parquet", "geojson", "gpkg", "shp", "fgb", "zip", "txt"])
@pytest.mark.parametrize("content", [b"", b"\x00\xff" * 40, b'{"type": "FeatureCollection", "fea', b"PAR1"])
def test_a_file_that_is_no_table_is_an_error_that_names_it(tmp_path, ending, content):
    (tmp_path / f"a.{ending}").write_bytes(content)
    with pytest.raises(EmbeddingError) as refused:
        read_places(tmp_path / f"a.{ending}")
    assert f"a.{ending}" in str(refused.value) or "a table of places needs columns" in str(refused.value)


def test_a_text_that_begins_as_geojson_and_is_none_is_refused():
    with pytest.raises(EmbeddingError, match="is GeoJSON, which this is not"):
        read_places('{"type": "Point"')


@pytest.mark.parametrize("spelling", ["pair", "pairs", "shapely", "series", "table", "geojson"])
def test_patches_are_cropped_to_those_that_hold_points(spelling):
    patches = gx.open("clay-v0", gx.example("clay-v0"))
    lon, lat = float(patches.x[1]), float(patches.y[1])
    point = shapely.Point(lon, lat)
    given = {
        "pair": (lon, lat),
        "pairs": [(lon, lat)] * 2,
        "shapely": point,
        "series": gpd.GeoSeries([point], crs=4326),
        "table": pd.DataFrame({"lon": [lon], "lat": [lat]}),
        "geojson": shapely.geometry.mapping(point),
    }[spelling]
    cut = patches.emb.crop(given)
    near = (abs(patches.x - lon) < 1e-6) & (abs(patches.y - lat) < 1e-6)
    assert cut.identical(patches.isel(location=np.flatnonzero(near)))
    with pytest.raises(CoverageError, match="holds none of the"):
        patches.emb.crop((0.0, 0.0))


def test_a_layer_of_several_is_asked_for(tmp_path):
    path = tmp_path / "a.gpkg"
    FRAME.iloc[:1].to_file(path, layer="one")
    FRAME.to_file(path, layer="two fields")
    with pytest.raises(
        SourceError, match=r"several layers: one, two fields; name one of them: 'a.gpkg\|layername=one'"
    ):
        read_places(path)
    assert len(read_places(f"{path}|layername=two fields").points) == 2
    with pytest.raises(SourceError, match="no layer 'three'; it has one, two fields"):
        read_places(f"{path}|layername=three")
    with pytest.raises(MissingFileError, match="no such file of points"):  # no words to search for
        gx.testing.synthetic("alphaearth", shape=(8, 9)).emb.similarity("none.gpkg|layername=one")
    styled = tmp_path / "styled.gpkg"
    FRAME.to_file(styled, layer="fields")
    pyogrio.write_dataframe(pd.DataFrame({"style": ["red"]}), styled, layer="layer_styles")  # as QGIS does
    assert len(read_places(styled).points) == 2
    FRAME[["geometry"]].to_file(tmp_path / "a.gpx", driver="GPX")  # five layers, one of which holds anything
    assert len(read_places(tmp_path / "a.gpx").points) == 2


def test_masked_pairs_are_no_places():
    pairs = np.ma.masked_array(np.column_stack([LON, LAT]), mask=[[True, False], [False, False]])
    assert read_places(pairs).missing.tolist() == [False, False]
    assert np.isnan(read_places(pairs).points[0]).any()

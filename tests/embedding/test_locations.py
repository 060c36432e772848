"""Location encoders: equal to the packages' own output, lazy on any grid, honest offline."""

import importlib
import sys
import types

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import xarray as xr

import geoemb_xr as gx
from geoemb_xr import testing
from geoemb_xr.catalog.geoclip import _package, load_geoclip
from geoemb_xr.core import areas, geometry, model
from geoemb_xr.core.errors import CoverageError, MissingExtraError, SourceError
from geoemb_xr.embedding import locations
from geoemb_xr.readers.tiles import Request

PLACES = pd.DataFrame(
    {
        "lon": [11.37, -70.6, 179.99, 0.0, -180.0],
        "lat": [47.25, -33.4, 66.0, 0.0, -89.5],
        "name": list("abcde"),
    },
    index=[3, 5, 7, 9, 11],
)
BBOX = (11.2, 47.1, 11.5, 47.3)


@pytest.fixture(scope="module", autouse=True)
def offline():
    patch = pytest.MonkeyPatch()
    patch.setenv("HF_HUB_OFFLINE", "1")
    yield
    patch.undo()


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


@pytest.fixture(scope="module")
def geoclip():
    pytest.importorskip("torch")
    if importlib.util.find_spec("geoclip") is None:
        pytest.skip("geoclip is not installed")
    return gx.product("geoclip")


@pytest.fixture(scope="module")
def checkpoint(torch, tmp_path_factory):
    """A SatCLIP of random weights, as its publisher's checkpoints name them; and the network."""
    pytest.importorskip("torchgeo")
    satclip = importlib.import_module("torchgeo.models.satclip").satclip
    torch.manual_seed(0)
    network = satclip().eval()
    path = tmp_path_factory.mktemp("satclip") / "satclip-vit16-l40.ckpt"
    state = {f"model.location.{key}": value for key, value in network.state_dict().items()}
    torch.save({"state_dict": {**state, "model.visual.proj": torch.zeros(2)}}, path)
    return path, network


def opened(product, source=None, **kwargs):
    return gx.product(product).open(source, Request(**kwargs))


def area():
    return areas.parse_bbox(BBOX)


# --- geoclip ------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:FutureWarning")
def test_geoclip_equals_the_package(geoclip, torch, monkeypatch):
    """Its own class, from its own module, called as its documentation does: (latitude, longitude)."""
    array = opened("geoclip", points=PLACES).compute()
    pairs = torch.tensor(PLACES[["lat", "lon"]].to_numpy().copy(), dtype=torch.float32)
    bare = types.ModuleType("bare_geoclip")  # the package's own __init__ brings transformers
    bare.__path__ = [str(_package() / "model")]
    monkeypatch.setitem(sys.modules, "bare_geoclip", bare)
    own = importlib.import_module("bare_geoclip.location_encoder").LocationEncoder()
    with torch.no_grad():
        expected = own.eval()(pairs).numpy()
    np.testing.assert_allclose(array.values, expected, rtol=0, atol=1e-5)
    assert np.abs(expected).max() > 0.05
    assert np.linalg.norm(expected[0] - expected[1]) > 0.1


@pytest.mark.complete  # its import alone takes seconds; the class itself is compared above
def test_geoclip_equals_the_package_imported_whole(geoclip, torch):
    """Through ``import geoclip``, which brings transformers."""
    own = importlib.import_module("geoclip").LocationEncoder().eval()
    pairs = torch.tensor(PLACES[["lat", "lon"]].to_numpy().copy(), dtype=torch.float32)
    with torch.no_grad():
        np.testing.assert_allclose(
            opened("geoclip", points=PLACES).values, own(pairs).numpy(), rtol=0, atol=1e-5
        )


def test_loading_geoclip_says_nothing_and_draws_no_random_numbers(geoclip, torch, recwarn):
    state = torch.get_rng_state()
    load_geoclip()
    assert not recwarn.list
    assert torch.equal(torch.get_rng_state(), state)


def test_geoclip_leaves_the_image_encoder_alone(geoclip):
    before = set(sys.modules)
    opened("geoclip", points=PLACES).compute()
    new = set(sys.modules) - before
    assert not any(name.split(".")[0] in ("transformers", "geoclip") for name in new)


def test_an_area_gets_a_grid(geoclip):
    with testing.raise_if_dask_computes():
        array = opened("geoclip", area=area())
    assert array.dims == ("band", "y", "x")
    assert array.shape == (512, 20, 30)
    assert array.dtype == np.float32
    assert geometry.crs_of(array).to_epsg() == 4326
    assert array.coords["y"].values[0] > array.coords["y"].values[-1]
    assert model.check_embedding(array, "test") is geoclip
    assert array.attrs["product"] == "geoclip"
    computed = array.compute()
    points = opened("geoclip", points=[(float(array.x[4]), float(array.y[7]))]).compute()
    np.testing.assert_array_equal(computed.values[:, 7, 4], points.values[0])


def test_chunks_do_not_change_values(geoclip):
    whole = opened("geoclip", area=area()).compute()
    for chunks in (17, {"y": 11, "x": 30}):
        cut = opened("geoclip", area=area(), chunks=chunks)
        assert cut.data.numblocks[1] > 1
        np.testing.assert_array_equal(cut.values, whole.values)


def test_a_grid_in_utm(geoclip):
    box = testing.geobox((6, 8), resolution=1000.0)
    array = opened("geoclip", geobox=box)
    assert geometry.same_grid(array.emb.geobox, box)
    lon, lat = testing.lonlat_of(box)
    points = opened("geoclip", points=np.stack([lon.ravel(), lat.ravel()], axis=1))
    np.testing.assert_allclose(array.values.reshape(512, -1).T, points.values, rtol=0, atol=1e-5)
    south_up = opened("geoclip", geobox=box.flipy())
    xr.testing.assert_equal(south_up.compute(), array.compute())


def test_across_the_antimeridian(geoclip):
    array = opened("geoclip", area=areas.parse_bbox((179.95, -17.0, -179.95, -16.95))).compute()
    assert array.sizes["x"] == 10
    lon = array.coords["x"].values
    assert lon.max() > 180
    points = opened(
        "geoclip", points=np.stack([(lon + 180) % 360 - 180, np.full(10, array.y.values[0])], axis=1)
    )
    np.testing.assert_allclose(array.values[:, 0].T, points.values, rtol=0, atol=1e-5)


def test_points_keep_their_index_and_columns(geoclip):
    array = opened("geoclip", points=PLACES)
    assert array.dims == ("location", "band")
    assert array.coords["location"].values.tolist() == PLACES.index.tolist()
    assert array.coords["name"].values.tolist() == list("abcde")
    frame = gpd.GeoDataFrame(PLACES[["name"]], geometry=gpd.points_from_xy(PLACES.lon, PLACES.lat), crs=4326)
    other = opened("geoclip", points=frame[:3].to_crs(3857))
    np.testing.assert_allclose(other.values, array.values[:3], rtol=0, atol=1e-5)
    assert "geometry" not in other.coords


def test_a_point_without_coordinates_is_missing(geoclip):
    values = opened("geoclip", points=[(11.0, 47.0), (np.nan, 47.0)]).values
    assert np.isnan(values).all(axis=1).tolist() == [False, True]


def test_gx_open(geoclip):
    array = gx.open("geoclip", bbox=BBOX)
    np.testing.assert_array_equal(array.values, opened("geoclip", area=area()).values)
    coarse = gx.open("geoclip", bbox=BBOX, resolution=0.05)
    assert coarse.shape == (512, 4, 6)
    utm = gx.open("geoclip", bbox=BBOX, crs="EPSG:32632")
    assert utm.emb.geobox.resolution.x == 1000
    assert gx.open("geoclip", like=utm).shape == utm.shape
    points = gx.open("geoclip", points=PLACES)
    np.testing.assert_array_equal(points.values, opened("geoclip", points=PLACES).values)


# --- satclip ------------------------------------------------------------------------------------------------


def test_satclip_equals_torchgeos_model(checkpoint, torch):
    path, network = checkpoint
    array = opened("satclip", path, points=PLACES).compute()
    pairs = torch.tensor(PLACES[["lon", "lat"]].to_numpy().copy(), dtype=torch.float32)
    with torch.no_grad():
        np.testing.assert_allclose(array.values, network(pairs).numpy(), rtol=0, atol=1e-5)
    assert array.shape == (5, 256)
    assert array.attrs["version"] == "ViT16-L40"
    assert array.attrs["source"] == str(path)


def test_satclip_takes_a_bare_state_dict(checkpoint, torch, tmp_path):
    path, network = checkpoint
    torch.save(network.state_dict(), tmp_path / "bare.pt")
    first, second = (opened("satclip", each, points=PLACES).values for each in (path, tmp_path / "bare.pt"))
    np.testing.assert_array_equal(first, second)


def test_satclip_refuses_what_it_is_not(checkpoint, torch, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no checkpoint of SatCLIP at .*missing.ckpt; download"):
        opened("satclip", tmp_path / "missing.ckpt", points=PLACES)
    torch.save({"other.weight": torch.zeros(3)}, tmp_path / "other.pt")
    with pytest.raises(SourceError, match=r"other.pt is not a checkpoint of SatCLIP"):
        opened("satclip", tmp_path / "other.pt", points=PLACES).compute()


def test_satclip_offline_says_what_to_do(checkpoint, torch, tmp_path, monkeypatch):
    def no_network(*args, **kwargs):
        raise OSError("Name or service not known")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    with pytest.raises(
        SourceError,
        match=r"could not be downloaded from https://huggingface.co/microsoft/SatCLIP.*give its path",
    ):
        opened("satclip", points=PLACES).compute()


# --- programs -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "dims", "gives"), [("mind", 64, 3072), ("hydroloc", 512, 512)])
def test_a_program_of_latitudes_and_longitudes_is_cut_to_its_prefix(name, dims, gives, torch, tmp_path):
    """As MIND comes: ONNX, ``latlon`` [n, 2] to 3,072 numbers, of which the first 64 are the embedding."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Tanh(), torch.nn.Linear(8, gives)).eval()
    path = tmp_path / f"{name}.onnx"
    torch.onnx.export(network, (torch.zeros(2, 2),), path, input_names=["latlon"],
                      dynamic_axes={"latlon": {0: "n"}}, dynamo=False)  # fmt: skip
    found = gx.open(name, path, points=PLACES)
    latlon = torch.tensor(PLACES[["lat", "lon"]].to_numpy().copy(), dtype=torch.float32)
    with torch.no_grad():
        expected = network(latlon).numpy()[:, :dims]
    np.testing.assert_allclose(found.values, expected, atol=1e-5)
    assert found.emb.product.name == name
    assert gx.open(name, str(path), bbox=BBOX).shape[0] == dims
    with pytest.raises(
        SourceError, match=rf"the weights of '{name}' come from a file: download .*huggingface"
    ):
        gx.open(name, points=PLACES)
    short = tmp_path / "short.onnx"
    torch.onnx.export(network[:1], (torch.zeros(2, 2),), short, input_names=["latlon"],
                      dynamic_axes={"latlon": {0: "n"}}, dynamo=False)  # fmt: skip
    with pytest.raises(SourceError, match=rf"gives \(512, 8\) for 512 places; at least {dims} numbers"):
        gx.open(name, short, points=PLACES).compute()


# --- what they refuse ---------------------------------------------------------------------------------------


def test_they_need_a_place_and_no_time(geoclip):
    with pytest.raises(CoverageError, match="say where, with bbox="):
        opened("geoclip")
    with pytest.raises(SourceError, match="leave out time="):
        opened("geoclip", area=area(), time=2024)
    with pytest.raises(SourceError, match="leave out source="):
        opened("geoclip", "weights.pt", area=area())


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"'geoclip', which is not installed.*'\.\[locations\]'"):
        opened("geoclip", area=area())


def test_a_network_is_loaded_once_a_process(torch):
    calls = []

    def load():
        calls.append(1)
        return torch.nn.Linear(2, 3).eval()

    product = gx.Product("test-encoder", dims=3, kind="location")
    request = Request(area=area(), chunks=5)
    array = locations.open_encoder(load, request, product, lonlat=True, source="test")
    assert not calls
    array.compute()
    assert len(array.data.dask.layers) <= 4
    assert calls == [1]

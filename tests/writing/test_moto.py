"""Written to and read from moto, an S3 that others wrote, in an environment and a process of its own."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import numpy as np
import obstore
import pytest

import geoemb_xr as gx
from geoemb_xr.core.errors import SourceError

#: Seconds in which the environment is made and the server answers; without a registry it does not.
PATIENCE = 90
SEEDS = [("alphaearth", "cog"), ("alphaearth", "zarr"), ("tessera", "zarr"), ("tessera", "npy")]


@pytest.fixture(scope="module")
def s3(tmp_path_factory):
    """Options that reach moto; its botocore wants an older dateutil than ours, hence the environment of its own."""
    if shutil.which("uv") is None:
        pytest.skip("uv is not at hand, which makes the environment that moto runs in")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    command = ["uv", "run", "--isolated", "--no-project", "--python", version, "--with", "moto[server]"]
    with (tmp_path_factory.mktemp("moto") / "log").open("w") as log:
        server = subprocess.Popen([*command, "moto_server", "-p", str(port)], stdout=log, stderr=log)
    url, ends = f"http://127.0.0.1:{port}", time.monotonic() + PATIENCE
    try:
        while True:
            try:
                urllib.request.urlopen(url, timeout=5).close()
                break
            except (urllib.error.URLError, OSError):
                if server.poll() is not None or time.monotonic() > ends:
                    pytest.skip("moto could not be installed or did not start: is a registry at hand?")
                time.sleep(0.5)
        keys = {"access_key_id": "x", "secret_access_key": "x", "region": "us-east-1"}
        urllib.request.urlopen(urllib.request.Request(f"{url}/bucket", method="PUT")).close()
        yield {**keys, "endpoint": url, "allow_http": True}
    finally:
        server.terminate()
        server.wait()


@pytest.fixture(scope="module")
def codes():
    return gx.testing.synthetic("alphaearth", shape=(64, 48), years=[2020, 2021], chunks=32, decode=False)


@pytest.mark.complete
def test_what_is_written_to_s3_comes_back(s3, codes):
    place = "s3://bucket/deep"
    gx.to_zarr(codes, f"{place}/a.zarr", storage=s3)
    np.testing.assert_array_equal(gx.open(f"{place}/a.zarr", storage=s3, decode=False).values, codes.values)
    with pytest.raises(FileExistsError, match="mode='w'"):
        gx.to_zarr(codes, f"{place}/a.zarr", storage=s3)
    gx.to_zarr(codes.isel(time=[0]), f"{place}/a.zarr", mode="w", storage=s3)
    assert gx.open(f"{place}/a.zarr", storage=s3).sizes["time"] == 1
    one = codes.isel(time=0)
    gx.to_cog(one, f"{place}/x.tif", storage=s3)
    np.testing.assert_array_equal(gx.open(f"{place}/x.tif", storage=s3, decode=False).squeeze(), one.values)
    at = one.emb.sample(gx.testing.scene().points(50, radius=200))
    gx.to_geoparquet(at, f"{place}/p.parquet", storage=s3)
    assert gx.open(f"{place}/p.parquet", storage=s3).sizes == at.sizes


@pytest.mark.complete
@pytest.mark.parametrize(("product", "container"), SEEDS)
def test_products_in_s3_are_read_as_from_a_disk(s3, product, container, tmp_path):
    source = gx.product(product).example(tmp_path, container)
    store = obstore.store.S3Store(
        "bucket", virtual_hosted_style_request=False, client_options={"allow_http": True},
        **{key: value for key, value in s3.items() if key != "allow_http"},
    )  # fmt: skip
    folder = f"{product}-{container}"
    for file in [source] if source.is_file() else [each for each in source.rglob("*") if each.is_file()]:
        obstore.put(store, f"{folder}/{os.path.relpath(file, source.parent)}", file.read_bytes())
    here = gx.open(product, source)[..., :40, :40]
    there = gx.open(product, f"s3://bucket/{folder}/{source.name}", storage=s3)[..., :40, :40]
    np.testing.assert_array_equal(there.values, here.values)


@pytest.mark.complete
def test_what_is_not_in_s3_is_an_error_in_words(s3):
    for name in ("s3://nobucket/x", "s3://bucket/none.zarr"):
        with pytest.raises(SourceError, match=name.removeprefix("s3://")):
            gx.open("tessera", name, storage=s3)

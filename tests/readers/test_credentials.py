"""Whose credentials a read goes by, for obstore and for GDAL: the user's environment and profiles win."""

import pytest

from geoemb_xr.core.errors import SourceError
from geoemb_xr.readers import geotiff
from geoemb_xr.stores import credentials
from geoemb_xr.stores.objects import object_store
from geoemb_xr.stores.storage import parse_storage, using

NAMES = ("AWS", "GS_", "GOOGLE")


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home without credentials, and an environment without any."""
    import os

    for name in list(os.environ):
        if name.startswith(NAMES):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".aws").mkdir()
    return tmp_path / ".aws"


def gdal():
    return credentials.gdal_options(geotiff.REMOTE_ENV)


def test_without_any_a_read_is_anonymous_in_the_region_of_the_published_stores(home):
    assert credentials.s3_options() == {
        "region": "us-west-2", "virtual_hosted_style_request": False, "skip_signature": True,
    }  # fmt: skip
    assert gdal()["AWS_NO_SIGN_REQUEST"] == gdal()["GS_NO_SIGN_REQUEST"] == "YES"
    assert gdal()["AWS_REGION"] == "us-west-2"
    assert gdal()["GDAL_NUM_THREADS"] == 2
    assert object_store("s3://bucket/a").config["skip_signature"]


@pytest.mark.parametrize(
    "name", ["AWS_ACCESS_KEY_ID", "AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE",
             "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"],
)  # fmt: skip
def test_keys_and_roles_of_the_environment_sign(home, monkeypatch, name):
    monkeypatch.setenv(name, "mine")
    assert "skip_signature" not in credentials.s3_options()
    assert "AWS_NO_SIGN_REQUEST" not in gdal()
    assert gdal()["GS_NO_SIGN_REQUEST"] == "YES"
    monkeypatch.setenv("AWS_NO_SIGN_REQUEST", "YES")
    assert credentials.s3_options()["skip_signature"]


@pytest.mark.parametrize("profile", ["default", "work"])
def test_a_profile_signs_with_its_keys_in_its_region(home, monkeypatch, profile):
    (home / "credentials").write_text(
        f"[{profile}]\naws_access_key_id = AK\naws_secret_access_key = S%K\naws_session_token = T\n"
    )
    section = profile if profile == "default" else f"profile {profile}"
    (home / "config").write_text(f"[{section}]\nregion = eu-central-1\n")
    if profile != "default":
        assert credentials.s3_options()["skip_signature"]
        monkeypatch.setenv("AWS_PROFILE", profile)
    assert credentials.s3_options() == {
        "region": "eu-central-1", "virtual_hosted_style_request": False,
        "access_key_id": "AK", "secret_access_key": "S%K", "token": "T",
    }  # fmt: skip
    assert not {"AWS_NO_SIGN_REQUEST", "AWS_REGION"} & set(gdal())
    store = object_store("s3://bucket/a")
    assert store.config["access_key_id"] == "AK"
    assert store.config["region"] == "eu-central-1"


@pytest.mark.parametrize("name", ["AWS_REGION", "AWS_DEFAULT_REGION"])
def test_the_users_region_wins(home, monkeypatch, name):
    monkeypatch.setenv(name, "eu-north-1")
    assert credentials.s3_options()["region"] == "eu-north-1"
    assert "AWS_REGION" not in gdal()
    assert object_store("s3://bucket/a").config["region"] == "eu-north-1"


def test_other_credentials_are_another_store(home, monkeypatch):
    before = object_store("s3://bucket/a")
    assert object_store("s3://bucket/a") is before
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AK")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "SK")
    signed = object_store("s3://bucket/a")
    assert "skip_signature" not in signed.config
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "changed")
    assert object_store("s3://bucket/a") is not signed


def test_a_profile_without_keys_says_what_to_do(home, monkeypatch):
    monkeypatch.setenv("AWS_PROFILE", "sso")
    (home / "config").write_text("[profile sso]\nsso_session = x\n")
    with pytest.raises(SourceError, match=r"profile 'sso' has no keys.*export-credentials"):
        credentials.s3_options()
    (home / "config").write_text("no section\n")
    with pytest.raises(SourceError, match="is not a file of AWS profiles"):
        credentials.s3_options()


def test_googles_credentials_sign(home, monkeypatch):
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "key.json")
    assert "GS_NO_SIGN_REQUEST" not in gdal()


def test_a_profile_says_where_its_stores_are_and_the_environment_wins(home, monkeypatch):
    (home / "config").write_text("[profile lab]\nregion = eu-north-1\nendpoint_url = https://lab.example\n")
    (home / "credentials").write_text("[lab]\naws_access_key_id = K\naws_secret_access_key = S\n")
    monkeypatch.setenv("AWS_PROFILE", "lab")
    assert object_store("s3://b/a").config["endpoint"] == "https://lab.example"
    with using(parse_storage({"endpoint": "https://mine.example"})):
        assert object_store("s3://b/a").config["endpoint"] == "https://mine.example"
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://other.example")
    assert "endpoint" not in credentials.s3_options()  # obstore reads it itself


@pytest.mark.parametrize("where", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "profile"])
def test_an_endpoint_without_encryption_is_refused_at_once_unless_it_is_meant(home, monkeypatch, where):
    if where == "profile":
        (home / "config").write_text("[default]\nendpoint_url = http://lab.example\n")
    else:
        monkeypatch.setenv(where, "http://lab.example")
    with pytest.raises(SourceError, match=r"http://lab\.example is not encrypted"):
        object_store("s3://b/a")
    with using(parse_storage({"allow_http": True})):
        assert object_store("s3://b/a")
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    assert object_store("s3://b/a")
    with using(parse_storage({"endpoint": "http://mine.example"})), pytest.raises(SourceError, match="mine"):
        object_store("s3://b/a")

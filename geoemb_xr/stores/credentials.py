"""Credentials of reads: the user's from the environment or a profile, else anonymous.

Published embeddings are public, so that a read is anonymous by default. Keys, a profile, a role, a region or an
endpoint that the user has set up win over that, for obstore and for GDAL alike; ``AWS_NO_SIGN_REQUEST`` set to
``YES`` or ``NO`` decides by itself.
"""

from __future__ import annotations

import configparser
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from geoemb_xr.core.errors import SourceError

#: Where the published stores lie; any other region is the user's to say.
DEFAULT_REGION = "us-west-2"
#: Variables of which each is a way to sign requests.
_SIGNING = (
    "AWS_ACCESS_KEY_ID",
    "AWS_ROLE_ARN",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)
_GOOGLE = (
    "GOOGLE_APPLICATION_CREDENTIALS",
    "GS_ACCESS_KEY_ID",
    "GS_OAUTH2_REFRESH_TOKEN",
    "GOOGLE_SERVICE_ACCOUNT",
)
_AZURE = (
    "AZURE_STORAGE_ACCOUNT_KEY",
    "AZURE_STORAGE_SAS_TOKEN",
    "AZURE_STORAGE_SAS_KEY",
    "AZURE_CLIENT_ID",
    "AZURE_STORAGE_CLIENT_ID",
    "AZURE_FEDERATED_TOKEN_FILE",
    "AZURE_STORAGE_TOKEN",
)
#: Variables that say where the user's stores are, by scheme, the first winning, and that http is meant.
_ENDPOINTS = {
    "s3": (("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"), "AWS_ALLOW_HTTP"),
    "az": (("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"), "AZURE_ALLOW_HTTP"),
}
_YES = ("yes", "true", "1", "on")
_REGIONS = ("AWS_REGION", "AWS_DEFAULT_REGION")


def environment() -> tuple[tuple[str, str], ...]:
    """The part of the environment that a store is made of."""
    names = ("AWS_", "GOOGLE_", "AZURE_")
    return tuple(sorted((key, value) for key, value in os.environ.items() if key.startswith(names)))


#: Options by which a caller signs requests.
_KEYS = (
    "access_key",
    "secret",
    "token",
    "account",
    "service",
    "credential",
    "client_id",
    "sas",
    "role",
    "skip_signature",
)


def is_signing(options: Mapping[str, Any]) -> bool:
    """Whether the options of a store say themselves how requests are signed, or that they are not."""
    return any(key in name.lower() for name in options for key in _KEYS)


def store_options(scheme: str) -> dict[str, Any]:
    """Options of an obstore store of a scheme, besides what obstore takes from the environment itself."""
    if scheme in ("s3", "s3a"):
        return s3_options()
    names = {"gs": _GOOGLE, "az": _AZURE, "azure": _AZURE, "abfs": _AZURE, "abfss": _AZURE}.get(scheme)
    return {} if names is None or any(each in os.environ for each in names) else {"skip_signature": True}


def endpoint_of(scheme: str) -> tuple[str, bool]:
    """The user's endpoint from the environment or a profile, and whether http is allowed; empty by default."""
    kind = {"s3a": "s3", "azure": "az", "abfs": "az", "abfss": "az"}.get(scheme, scheme)
    names, allowing = _ENDPOINTS.get(kind, ((), ""))
    found = next((os.environ[each] for each in names if os.environ.get(each)), None)
    if found is None and kind == "s3":
        found = _profile_value("endpoint_url")
    return found or "", os.environ.get(allowing, "").strip().lower() in _YES


def s3_options() -> dict[str, Any]:
    """Options of an obstore store in S3, besides what obstore takes from the environment itself.

    Raises
    ------
    SourceError
        If ``AWS_PROFILE`` names a profile whose keys are not in a file.
    """
    own = next((os.environ[each] for each in _REGIONS if each in os.environ), _profile_value("region"))
    options: dict[str, Any] = {"region": own or DEFAULT_REGION}
    if not any(os.environ.get(each) for each in _ENDPOINTS["s3"][0]) and endpoint_of("s3")[0]:
        options["endpoint"] = endpoint_of("s3")[0]  # a profile's, which obstore does not read
    if "AWS_VIRTUAL_HOSTED_STYLE_REQUEST" not in os.environ:
        options["virtual_hosted_style_request"] = False  # names of buckets have dots
    if not is_signed():
        options["skip_signature"] = True
    elif not any(each in os.environ for each in _SIGNING):
        options |= _keys_of_profile()
    return options


def gdal_options(defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return GDAL's options for object stores, except those that the user has set."""
    left_out = set(os.environ)
    if is_signed():
        left_out.add("AWS_NO_SIGN_REQUEST")
    if any(each in os.environ for each in _REGIONS) or _profile_value("region"):
        left_out.add("AWS_REGION")
    if any(each in os.environ for each in _GOOGLE):
        left_out.add("GS_NO_SIGN_REQUEST")
    return {key: value for key, value in defaults.items() if key not in left_out}


def is_signed() -> bool:
    """Whether the user has set up a way to sign requests to S3."""
    for name in ("AWS_NO_SIGN_REQUEST", "AWS_SKIP_SIGNATURE"):
        if name in os.environ:
            return os.environ[name].strip().lower() not in _YES
    if any(each in os.environ for each in _SIGNING) or _profile() is not None:
        return True
    return _profile_value("aws_access_key_id") is not None


def _profile() -> str | None:
    return os.environ.get("AWS_PROFILE") or os.environ.get("AWS_DEFAULT_PROFILE")


def _profile_value(key: str) -> str | None:
    """A value of the user's profile, from the two files where AWS keeps them."""
    profile = _profile() or "default"
    credentials = os.environ.get("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials")
    config = os.environ.get("AWS_CONFIG_FILE", "~/.aws/config")
    for file, section in ((credentials, profile), (config, f"profile {profile}"), (config, profile)):
        parser = configparser.RawConfigParser()
        try:
            parser.read(Path(file).expanduser(), encoding="utf-8")
        except configparser.Error as error:
            raise SourceError(f"{file} is not a file of AWS profiles: {error}") from error
        if parser.has_option(section, key):
            return parser.get(section, key)
    return None


def _keys_of_profile() -> dict[str, str]:
    keys = {
        "access_key_id": _profile_value("aws_access_key_id"),
        "secret_access_key": _profile_value("aws_secret_access_key"),
        "token": _profile_value("aws_session_token"),
    }
    if keys["access_key_id"] is None or keys["secret_access_key"] is None:
        if _profile() is None:
            return {}  # signing was asked for by itself: obstore finds the machine's role
        raise SourceError(
            f"the AWS profile {_profile()!r} has no keys in a file (it may sign in by SSO or take a role); put "
            'them into the environment: eval "$(aws configure export-credentials --format env)"'
        )
    return {key: value for key, value in keys.items() if value is not None}

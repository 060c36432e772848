"""Object stores: anonymous where the user has set up no credentials."""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Any

from geoemb_xr.model import require


def is_remote(path: str) -> bool:
    """Whether a path is read over the network."""
    return "://" in path or path.startswith("/vsi")


@lru_cache(maxsize=64)
def object_store(url: str) -> Any:
    """An obstore store of a folder's URL.

    Raises
    ------
    MissingExtraError
        If obstore is not installed.
    """
    stores = require("obstore.store", "remote")
    options: dict[str, Any] = {}
    if url.startswith("s3://"):
        options = {"skip_signature": True, "region": "us-west-2", "virtual_hosted_style_request": False}
        if "AWS_ACCESS_KEY_ID" in os.environ:  # credentials that the user has set up win
            options.pop("skip_signature")
    return stores.from_url(url, **options)


def get_range(url: str, start: int, length: int) -> bytes:
    """Some bytes of an object."""
    obstore = require("obstore", "remote")
    folder, _, name = url.rpartition("/")
    return bytes(obstore.get_range(object_store(folder), name, start=start, length=length))


def open_object(url: str) -> Any:
    """An object as a file that is read by ranges."""
    obstore = require("obstore", "remote")
    folder, _, name = url.rpartition("/")
    return obstore.open_reader(object_store(folder), name)


def head_object(url: str) -> str:
    """What changes when an object is rewritten: its size and ETag."""
    obstore = require("obstore", "remote")
    folder, _, name = url.rpartition("/")
    meta = obstore.head(object_store(folder), name)
    return f"{meta['size']}-{meta.get('e_tag') or meta.get('last_modified')}"

"""Zarr stores that are not folders of objects, read only: zipped ones, and repositories of Icechunk."""

from __future__ import annotations

import os
import zipfile
from collections.abc import AsyncIterator, Mapping
from functools import cached_property
from threading import Lock
from typing import Any

from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype

from geoemb_xr.core.errors import SourceError, require
from geoemb_xr.stores.archives import ROOTS
from geoemb_xr.stores.credentials import is_signed, s3_options
from geoemb_xr.stores.files import ObjectFile, RemoteObject
from geoemb_xr.stores.http import CONNECT, stall_of
from geoemb_xr.stores.objects import is_remote, not_encrypted
from geoemb_xr.stores.storage import OWN_SCHEME, Storage, current, using
from geoemb_xr.stores.zarr_objects import byte_span

#: A member may not claim more bytes than this, unpacked.
_LARGEST_MEMBER = 1 << 31


class ZippedZarr(Store):
    """A Zarr store in a zip file; its directory says what was written.

    Parameters
    ----------
    url : str
        Path or URL.
    storage : Storage, optional
        Options that reach it; those of the current call by default.
    """

    supports_writes = False
    supports_deletes = False
    supports_listing = True
    supports_partial_writes = False

    def __init__(self, url: str, storage: Storage | None = None) -> None:
        super().__init__(read_only=True)
        self.url, self.storage = url, storage or current()
        self._lock = Lock()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ZippedZarr) and (self.url, self.storage) == (other.url, other.storage)

    def __hash__(self) -> int:
        return hash((self.url, self.storage))

    def __repr__(self) -> str:
        return f"ZippedZarr({self.url!r})"

    def __reduce__(self) -> Any:
        return ZippedZarr, (self.url, self.storage)

    @cached_property
    def _archive(self) -> tuple[zipfile.ZipFile, str]:
        """The archive, and the folder in it that the store is."""
        with using(self.storage):
            file = ObjectFile(RemoteObject(self.url, from_end=True)) if is_remote(self.url) else self.url
            try:
                archive = zipfile.ZipFile(file)
            except zipfile.BadZipFile as error:
                raise SourceError(f"{self.url} is not a zip file, or is truncated: {error}") from error
        names = archive.namelist()
        roots = sorted({n.rpartition("/")[0] for n in names if n.rpartition("/")[2] in ROOTS}, key=len)
        if not roots:
            raise SourceError(f"{self.url} holds no Zarr store; it holds {names[:5]}")
        return archive, f"{roots[0]}/" if roots[0] else ""

    def _read(self, key: str, span: tuple[int, int | None] | None) -> bytes | None:
        with self._lock, using(self.storage):
            archive, root = self._archive
            try:
                member = archive.getinfo(root + key)
            except KeyError:
                return None
            if member.file_size > _LARGEST_MEMBER:
                raise SourceError(f"{self.url} claims {member.file_size / 1e9:.0f} GB for {key!r}")
            try:
                data = archive.read(member)
            except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
                raise SourceError(f"{self.url} is damaged in {key!r}: {error}") from error
        return data if span is None else data[span[0] : span[1]]

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """A member, or a range of it; None where there is none."""
        data = self._read(key, byte_span(byte_range))
        return None if data is None else prototype.buffer.from_bytes(data)

    async def get_partial_values(self, prototype: BufferPrototype, key_ranges: Any) -> list[Buffer | None]:
        """Several ranges."""
        return [await self.get(key, prototype, each) for key, each in key_ranges]

    async def exists(self, key: str) -> bool:
        """Whether there is such a member."""
        archive, root = self._archive
        return root + key in archive.NameToInfo

    async def getsize(self, key: str) -> int:
        """Bytes of a member, as they lie in the archive."""
        archive, root = self._archive
        if (member := archive.NameToInfo.get(root + key)) is None:
            raise FileNotFoundError(f"{self.url} holds no {key!r}")
        return member.compress_size

    async def set(self, key: str, value: Buffer) -> None:
        """Not here: it is read only."""
        self._check_writable()

    async def delete(self, key: str) -> None:
        """Not here: it is read only."""
        self._check_writable()

    async def list(self) -> AsyncIterator[str]:
        """Keys of all members."""
        async for key in self.list_prefix(""):
            yield key

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """Keys below a folder."""
        archive, root = self._archive
        for name in archive.namelist():
            if name.startswith(root + prefix) and not name.endswith("/"):
                yield name.removeprefix(root)

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Names of what lies in a folder."""
        folder = f"{prefix.rstrip('/')}/" if prefix else ""
        names = {key.removeprefix(folder).partition("/")[0] async for key in self.list_prefix(folder)}
        for name in sorted(names):
            yield name


# --- Icechunk -----------------------------------------------------------------------------------------------------


def open_icechunk(url: str, snapshot: str = "") -> Any:
    """The Zarr store of a snapshot of a repository, by default the newest of the branch ``main``.

    Raises
    ------
    MissingExtraError
        If icechunk is not installed.
    SourceError
        If there is no such repository.
    """
    icechunk = require("icechunk", "icechunk")
    try:
        repository = icechunk.Repository.open(_icechunk_storage(icechunk, url), _icechunk_config(icechunk))
        session = (
            repository.readonly_session(snapshot_id=snapshot)
            if snapshot
            else repository.readonly_session("main")
        )
    except icechunk.IcechunkError as error:
        reason = " ".join(str(error).split())[:200]
        raise SourceError(f"{url} could not be opened as a repository of Icechunk: {reason}") from error
    return session.store


def icechunk_snapshot(url: str) -> str:
    """The newest snapshot of a repository, which is its state."""
    return str(open_icechunk(url).session.snapshot_id)


def _icechunk_config(icechunk: Any) -> Any:
    """Icechunk's own settings for retries."""
    storage = current()
    times = {"connect_timeout_ms": CONNECT, "read_timeout_ms": stall_of(storage)}
    times |= {"operation_timeout_ms": storage.timeout}
    limits = {name: int(1000 * min(seconds, storage.timeout)) for name, seconds in times.items()}
    tries = {"max_tries": storage.retries + 1, "initial_backoff_ms": 100, "max_backoff_ms": 10_000}
    settings = {"retries": icechunk.StorageRetriesSettings(**tries)}
    if hasattr(icechunk, "StorageTimeoutSettings"):  # newer than the oldest that is allowed
        settings["timeouts"] = icechunk.StorageTimeoutSettings(**limits)
    return icechunk.RepositoryConfig(storage=icechunk.StorageSettings(**settings))


def _http_limits() -> dict[str, str]:
    """Options of Icechunk's HTTP client, which has time-outs of its own."""
    storage = current()
    stall, connect = stall_of(storage), min(CONNECT, storage.timeout / 3)
    return {"read_timeout": f"{1000 * stall:.0f}ms", "connect_timeout": f"{1000 * connect:.0f}ms"}


def _icechunk_storage(icechunk: Any, url: str) -> Any:
    """Icechunk reads by a library of its own: it is told what ``storage=`` says, in its own words."""
    if not is_remote(url):
        return icechunk.local_filesystem_storage(os.path.abspath(url))
    if current().store is not None:
        return _icechunk_of(icechunk, current().store, url.removeprefix(OWN_SCHEME))
    scheme, _, rest = url.partition("://")
    bucket, _, prefix = rest.strip("/").partition("/")
    given = {key.removeprefix("aws_"): value for key, value in current().options}
    if scheme in ("s3", "s3a"):
        return _icechunk_s3(
            icechunk, bucket, prefix, {"region": s3_options()["region"], **given}, is_signed()
        )
    if scheme == "gs":
        return icechunk.gcs_storage(bucket=bucket, prefix=prefix, anonymous=not is_signed())
    if scheme in ("http", "https"):
        return _icechunk_http(icechunk, url)
    raise SourceError(f"{url}: repositories of Icechunk are read from a folder, s3://, gs:// or https://")


def _icechunk_of(icechunk: Any, store: Any, key: str) -> Any:
    """The same place as that of a key of an obstore store."""
    kind, prefix = type(store).__name__, str(getattr(store, "prefix", None) or "").rstrip("/")
    config = {name.removeprefix("aws_"): value for name, value in dict(getattr(store, "config", {})).items()}
    lies_in = f"{prefix}/{key}".lstrip("/")
    if kind == "LocalStore":
        return icechunk.local_filesystem_storage(f"{prefix}/{key}")
    if kind == "HTTPStore":
        return _icechunk_http(icechunk, f"{store.url.rstrip('/')}/{key}")
    if kind == "S3Store" and store.credential_provider is None:
        is_signing = config.get("skip_signature") != "true"
        return _icechunk_s3(icechunk, config["bucket"], lies_in, config, is_signing)
    if kind == "GCSStore" and config.get("skip_signature") == "true":
        return icechunk.gcs_storage(bucket=config["bucket"], prefix=lies_in, anonymous=True)
    raise SourceError(
        f"{key}: Icechunk reads repositories by a library of its own, which cannot be told how this {kind} does. "
        "Give the URL (s3://, gs://, https://), and options or the environment for credentials; or a path"
    )


def _icechunk_s3(icechunk: Any, bucket: str, prefix: str, given: Mapping[str, Any], is_signing: bool) -> Any:
    names = ("access_key_id", "secret_access_key", "session_token")
    keys = {name: given[name] for name in names if name in given}
    return icechunk.s3_storage(
        bucket=bucket,
        prefix=prefix,
        region=given.get("region"),
        endpoint_url=given.get("endpoint") or given.get("endpoint_url"),
        allow_http=current().allow_http,
        force_path_style=str(given.get("virtual_hosted_style_request", False)).lower() != "true",
        **keys,
        **({} if keys else {"from_env": True} if is_signing else {"anonymous": True}),
    )


def _icechunk_http(icechunk: Any, url: str) -> Any:
    if url.startswith("http://") and not current().allow_http:
        raise not_encrypted(url)
    return icechunk.http_storage(url, opts=_http_limits())

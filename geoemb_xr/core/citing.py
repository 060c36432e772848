"""The metadata of everything that is written: attribution, licence, product key, and how to cite it."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any

import xarray as xr

from geoemb_xr.core.codecs import CODECS
from geoemb_xr.core.errors import EmbeddingError, SourceError
from geoemb_xr.core.model import Product, normalise_name, product, registered

#: The GeoTIFF tag, and the key of a Parquet footer's JSON, that hold what only a reader of ours needs.
OWN_TAG = "geoemb_xr"
#: Facts of a Product that do not survive in a file: functions, and what only its own module needs.
_NOT_WRITTEN = {"open", "coverage", "example", "text", "stores", "codec"}
#: What is written of a product of the catalogue, whose other facts every installation knows.
_KEY_FACTS = {"name", "dims", "kind", "bands", "dtype", "unit_norm"}


@dataclass(frozen=True)
class Citation:
    """How to cite the products behind an array.

    Parameters
    ----------
    products : tuple of str
        Their names, with the version where it is known.
    attribution : str
        The text that must be shown, a line per product.
    licence : str
        SPDX identifiers, and what is unclear about them.
    citation : str
        The reference as text.
    bibtex : str
        BibTeX entries.
    share_alike : bool
        Whether derived data must carry the same licence.
    """

    products: tuple[str, ...]
    attribution: str
    licence: str
    citation: str
    bibtex: str
    share_alike: bool

    def __str__(self) -> str:
        parts = [
            ("Attribution", self.attribution),
            ("Licence", self.licence + (" (share alike)" if self.share_alike else "")),
            ("Reference", self.citation),
            ("BibTeX", self.bibtex),
        ]
        return "\n".join(f"{name}: {text}" for name, text in parts if text)

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"


def cite(subject: xr.DataArray | Product | str) -> Citation:
    """Attribution, licence and BibTeX of an array, or of a product.

    Parameters
    ----------
    subject : DataArray, Product or str
        An embedding array, a map made from one, a product, or a product's name.

    Returns
    -------
    Citation
        Prints as text; its fields are the parts.

    Raises
    ------
    EmbeddingError
        If the array says nothing of where it comes from.

    Examples
    --------
    >>> import geoemb_xr as gx
    >>> da = gx.testing.synthetic("alphaearth", shape=(4, 5))
    >>> gx.cite(da).products
    ('alphaearth synthetic',)
    """
    if isinstance(subject, xr.DataArray):
        origins = origins_of(subject)
        stated = str(subject.attrs.get("attribution", ""))
        if not origins and not stated:
            raise EmbeddingError(
                "cite got an array without 'product', 'derived_from' or 'attribution'; "
                f"its attributes are {sorted(map(str, subject.attrs))}"
            )
    else:
        origins, stated = [(product(subject), "")], ""
    found = [each for each, _ in origins]
    return Citation(
        products=tuple(f"{each.name} {version}".strip() for each, version in origins),
        attribution=stated or _lines(each.attribution for each in found),
        licence=_lines(
            each.licence + (f" ({each.licence_notes})" if each.licence_notes else "") for each in found
        ),
        citation=_lines(each.citation for each in found),
        bibtex=_lines(_bibtex(each) for each in found),
        share_alike=any(each.share_alike for each in found),
    )


def _lines(texts: Iterable[str]) -> str:
    return "\n".join(dict.fromkeys(text for text in texts if text.strip()))


def _bibtex(found: Product) -> str:
    """The product's own BibTeX entry, or one made from its facts where it has a DOI."""
    if found.bibtex or not found.doi:
        return found.bibtex
    key = re.sub(r"\W", "", found.name)
    return f"@misc{{{key},\n  title = {{{found.title or found.name}}},\n  doi = {{{found.doi}}}\n}}"


def origins_of(array: xr.DataArray) -> list[tuple[Product, str]]:
    """The products an array holds or is derived from, each with its version; empty where none is named."""
    if "product" in array.attrs:
        return [(product(array.attrs["product"]), str(array.attrs.get("version", "")))]
    known = {each.name: each for each in registered()}
    origins = []
    # "alphaearth v1", or several of them, as a map of fused products says it
    for part in re.split(r"\s*[;,+]\s*", str(array.attrs.get("derived_from", ""))):
        name, _, version = part.partition(" ")
        if normalise_name(name) in known:
            origins.append((known[normalise_name(name)], version))
    return origins


def provenance(array: xr.DataArray) -> dict[str, str]:
    """The origin of an array as plain strings, for the attributes of every file that is written.

    Parameters
    ----------
    array : DataArray
        An embedding array or a map.

    Returns
    -------
    dict of str to str
        Attribution, licence, the product key, source, codec and the version of this package; only what is
        known.
    """
    from geoemb_xr._version import __version__

    own = {
        key: str(array.attrs[key])
        for key in ("product", "version", "codec", "source", "derived_from")
        if array.attrs.get(key)
    }
    stated: dict[str, str] = {"attribution": str(array.attrs.get("attribution", ""))}
    if origins_of(array):
        cited = cite(array)
        stated = {
            "attribution": cited.attribution,
            "licence": cited.licence,
            "share_alike": "yes" if cited.share_alike else "",
        }
    known = {key: text for key, text in stated.items() if text}
    return {**own, **known, "software": f"geoemb_xr {__version__}"}


# --- facts of a product in a file ---------------------------------------------------------------------------


def product_facts(found: Product) -> dict[str, Any]:
    """The facts of a product as JSON values, so that a file can rebuild one that was made on the spot.

    Examples
    --------
    >>> import geoemb_xr as gx
    >>> product_facts(gx.Product("mine", dims=2, unit_norm=True))
    {'name': 'mine', 'dims': 2, 'bands': ['0', '1'], 'unit_norm': True}
    """
    facts: dict[str, Any] = {}
    for each in fields(Product):
        value = getattr(found, each.name)
        if each.name in _NOT_WRITTEN or (each.default is not MISSING and value == each.default):
            continue
        if found.open is not None and each.name not in _KEY_FACTS:
            continue
        facts[each.name] = list(value) if isinstance(value, tuple) else value
    if found.codec is not None:
        facts["codec"] = found.codec.name
    return facts


def product_of_facts(facts: Mapping[str, Any], where: str) -> Product:
    """The product that a file describes: the registered one of that name, or a new one made of the facts.

    Parameters
    ----------
    facts : mapping
        The facts that :func:`product_facts` wrote; unknown keys are ignored.
    where : str
        Name of the file, for the message.

    Raises
    ------
    SourceError
        If the facts are not a product's, contradict the registered product, or name an unknown codec.
    """
    try:
        name, dims = str(facts["name"]), int(facts["dims"])
    except (KeyError, TypeError, ValueError) as error:
        raise SourceError(f"{where} describes a product without a name and dims ({error!r})") from error
    known = {each.name: each for each in registered()}.get(name)
    bands = tuple(facts.get("bands") or map(str, range(dims)))
    codec = facts.get("codec")
    if known is not None:
        own = known.codec.name if known.codec is not None else None
        if (known.dims, known.bands, own) != (dims, bands, codec):
            raise SourceError(
                f"{where} holds the product {name!r} with {dims} dims and codec {codec!r}, but {name!r} is "
                f"registered here with {known.dims} dims and codec {own!r}: two things of one name. "
                "Open the file in a session that has not registered the other, or give one another name."
            )
        return known
    if codec is not None and codec not in CODECS:
        raise SourceError(
            f"{where} holds codes of {codec!r}, which is not a codec of this package ({', '.join(CODECS)}); "
            "register the product it belongs to first: gx.register(gx.Product(…, codec=…))"
        )
    valid = {each.name for each in fields(Product)} - _NOT_WRITTEN
    values: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in facts.items()
        if key in valid
    }
    try:
        values["codec"] = CODECS[codec] if codec is not None else None
        return product(Product(**values))
    except (TypeError, ValueError) as error:
        raise SourceError(f"{where} describes a product that cannot be made: {error}") from error

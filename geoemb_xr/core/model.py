"""The data model: what a Product is, where it is registered, and what may be compared with what.

An embedding array is a plain :class:`xarray.DataArray` with a ``band`` dimension and the attribute
``product``; everything else that is known of it is a fact of its :class:`Product`, looked up by that name.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, fields
from html import escape
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import numpy as np
import xarray as xr

from geoemb_xr.core import html
from geoemb_xr.core.errors import ComparabilityError, EmbeddingError, check_choice
from geoemb_xr.core.notes import say
from geoemb_xr.core.protocols import Coverage, Example, Open, PlaceEncoder, TextEncoder
from geoemb_xr.core.synonyms import answering, no_such

if TYPE_CHECKING:
    import pandas as pd

BAND = "band"
#: Attribute with the generative models that made up some of what an array was made of.
GENERATED = "generated_by"


#: Columns of the survey of published products (the table in torchgeo's documentation), verbatim.
SURVEY = (
    "Dataset", "Kind", "Spatial Extent", "Spatial Resolution", "Temporal Extent", "Temporal Resolution",
    "Dimensions", "Dtype", "License",
)  # fmt: skip


ProductKind = Literal["pixel", "patch", "location"]


ArrayKind = Literal["raster", "points", "map"]


# --- Product ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Codec:
    """How vectors are stored as integer codes, and back.

    Functions take the position of the band axis and keep the order of the dimensions, so that a block is
    decoded as it lies. The codecs that published products use are in :mod:`geoemb_xr.core.codecs`.

    Parameters
    ----------
    name : str
        Name, the attribute ``codec`` of an encoded array.
    dtype : str
        Data type of the codes.
    nodata : int or None
        The code of a missing value; one missing band makes the whole vector missing.
    decode : callable
        ``(codes, scale, axis) -> float32``, NaN in every band where there is no data.
    encode : callable
        ``(vectors, axis) -> (codes, scale)``; the inverse.
    decode_torch : callable
        ``(codes, scale, axis) -> float32 tensor``, the same on a torch device.
    scale : str or None
        Name of the coordinate of per-pixel scales that ``decode`` needs.
    bands : tuple of str
        Band labels after decoding, where they are not those of the codes.
    power : {0, 1, 2}
        For kernels that decode as they go: 1 is ``q · scale``, 2 is ``q · |q| · factor``, both in float32; 0 where
        ``decode`` alone knows.
    factor : float
        Factor of ``power`` 2.
    decode_onnx : callable, optional
        ``(codes, scale) -> (vectors, valid)``, the same as a formula of values of an ONNX graph, ``(n, band)`` and
        ``(n, 1)``: see :mod:`geoemb_xr.core.onnx_graph`. Without it models of such products take vectors there.
    encode_onnx : callable, optional
        ``vectors -> (codes, scale)``, the inverse.
    """

    name: str
    dtype: str
    nodata: int | None
    decode: Callable[[np.ndarray, np.ndarray | None, int], np.ndarray]
    encode: Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray | None]]
    decode_torch: Callable[[Any, Any, int], Any]
    scale: str | None = None
    bands: tuple[str, ...] = ()
    power: Literal[0, 1, 2] = 0
    factor: float = 1.0
    decode_onnx: Callable[[Any, Any], tuple[Any, Any]] | None = None
    encode_onnx: Callable[[Any], tuple[Any, Any]] | None = None


@dataclass(frozen=True)
class Product:
    """A published embedding product: its facts and the few functions that are its own.

    ``Product("mine", dims=768)`` is a whole product; all else has defaults.

    Parameters
    ----------
    name : str
        Short name, lower case; what the attribute ``product`` of its arrays says.
    dims : int
        Length of a decoded vector.
    title : str
        Full name.
    kind : {"pixel", "patch", "location"}
        A vector per pixel, a vector per image patch, or a function of the place.
    bands : tuple of str
        Band labels of the stored array; ``"0"``, ``"1"``, … by default.
    dtype : str
        The stored data type.
    codec : Codec, optional
        Codec of the codes; None where vectors are stored as floats.
    other_codecs : tuple of Codec
        Codes that exports of it come in, told apart by their dtype.
    unit_norm : bool
        Whether vectors lie on the unit sphere, so that means are renormalised.
    resolution : float, optional
        Ground distance of a pixel or a patch, in metres.
    context_m : float, optional
        Distance around a pixel that the encoder looked at, in metres; only where a source says so.
    extent, period, cadence : str
        Place, years and frequency of the product; ``*`` stands for gaps.
    survey : str
        Its row in the survey, verbatim, cells parted by ``" | "`` (see ``SURVEY``); empty where it has none.
    model, encoder, inputs : str
        The model's name, its architecture, and the data it was given.
    trained_on : tuple of str
        Data sets whose labels the model saw in training: no fair task for it.
    access : str
        Who may read the published store, and where.
    containers : tuple of str
        Containers that this package opens, the default first.
    stores : mapping of str to str
        Published stores by name, the default first.
    versions : tuple of str
        Versions, the default first; vectors of two versions are never compared.
    variants : tuple of str
        Editions of one version in different spaces (Major TOM's encoders).
    matryoshka : tuple of int
        Prefix lengths that are embeddings of their own.
    matryoshka_versions : tuple of str
        Versions they hold for, where not for all.
    torchgeo : str
        Class that opens it in torchgeo.
    aliases : tuple of str
        Other names that find it.
    citation, bibtex, doi : str
        Reference to cite.
    licence, licence_notes, attribution : str
        SPDX identifier, what conflicts or is unclear, and the text that must be shown.
    share_alike : bool
        Whether derived data must carry the same licence.
    quirks : tuple of str
        Surprises, each in one sentence.
    open : callable, optional
        ``(source, request) -> list of tiles, DataArray or Dataset``: see :class:`geoemb_xr.core.protocols.Open`.
    coverage : callable, optional
        ``(source, request) -> DataFrame`` of what exists.
    example : callable, optional
        ``(folder, container) -> source``: writes a small synthetic source in the true format.
    text : callable, optional
        ``(texts, version) -> vectors (text, band)``, for a space that was learnt from images and words.
    place : callable, optional
        ``longitudes and latitudes (n, 2) -> vectors (n, band)``, for a location encoder whose weights need no path.

    Examples
    --------
    >>> import geoemb_xr as gx
    >>> mine = gx.Product("mine", dims=3)
    >>> mine.bands
    ('0', '1', '2')
    """

    name: str
    dims: int
    _: KW_ONLY
    title: str = ""
    kind: ProductKind = "pixel"
    bands: tuple[str, ...] = ()
    dtype: str = "float32"
    codec: Codec | None = None
    other_codecs: tuple[Codec, ...] = ()
    unit_norm: bool = False
    resolution: float | None = None
    context_m: float | None = None
    extent: str = ""
    period: str = ""
    cadence: str = ""
    survey: str = ""
    model: str = ""
    encoder: str = ""
    inputs: str = ""
    trained_on: tuple[str, ...] = ()
    access: str = ""
    containers: tuple[str, ...] = ()
    stores: Mapping[str, str] = field(default_factory=dict, hash=False)
    versions: tuple[str, ...] = ()
    variants: tuple[str, ...] = ()
    matryoshka: tuple[int, ...] = ()
    matryoshka_versions: tuple[str, ...] = ()
    torchgeo: str = ""
    aliases: tuple[str, ...] = ()
    citation: str = ""
    bibtex: str = ""
    doi: str = ""
    licence: str = ""
    licence_notes: str = ""
    attribution: str = ""
    share_alike: bool = False
    quirks: tuple[str, ...] = ()
    open: Open | None = field(default=None, repr=False)
    coverage: Coverage | None = field(default=None, repr=False)
    example: Example | None = field(default=None, repr=False)
    text: TextEncoder | None = field(default=None, repr=False)
    place: PlaceEncoder | None = field(default=None, repr=False)

    if not TYPE_CHECKING:  # for a checker of types, what is not there must stay an error

        def __getattr__(self, name: str) -> NoReturn:
            raise AttributeError(no_such(name, [each.name for each in fields(self)], "Product"))

    def __post_init__(self) -> None:
        if not self.name or self.name != normalise_name(self.name):
            raise ValueError(f"a product's name is lower case with dashes; got {self.name!r}")
        if self.dims < 1:
            raise ValueError(f"dims is the length of a vector, at least 1; got {self.dims}")
        check_choice("kind", self.kind, ("pixel", "patch", "location"))
        for name, kind in (
            ("open", Open),
            ("coverage", Coverage),
            ("example", Example),
            ("text", TextEncoder),
            ("place", PlaceEncoder),
        ):
            given = getattr(self, name)
            if given is not None and not isinstance(given, kind):
                raise ValueError(f"{name} of product {self.name!r} is a function; got {given!r}")
        if not self.bands:
            object.__setattr__(self, "bands", tuple(str(i) for i in range(self.dims)))
        if self.survey and len(self.survey.split(" | ")) != len(SURVEY):
            raise ValueError(f"survey has a cell for each of {SURVEY}; got {self.survey!r}")
        decoded = len(self.decoded_bands)
        if decoded != self.dims:
            raise ValueError(f"product {self.name!r} has dims={self.dims} but {decoded} band labels")

    @property
    def decoded_bands(self) -> tuple[str, ...]:
        """Band labels of decoded vectors."""
        return (self.codec.bands if self.codec is not None else ()) or self.bands

    def __repr__(self) -> str:
        return f"<Product {self.name}: {self.title or 'no title'}, {self.dims} dims, {self.dtype}>"

    @property
    def licence_line(self) -> str:
        """The licence, and whether it is share-alike."""
        return self.licence + (", share alike" if self.share_alike else "")

    def _repr_html_(self) -> str:
        storage = f"{self.dtype}, codec {self.codec.name}" if self.codec else self.dtype
        length = "unit length" if self.unit_norm else "free length"
        ground = f"{self.resolution:g} m" if self.resolution else ""
        facts: Sequence[tuple[str, str]] = (
            ("vectors", f"{self.dims} bands, {length}, stored as {storage}"),
            (
                "one for",
                " of ".join(
                    filter(None, ({"location": "any place"}.get(self.kind, f"a {self.kind}"), ground))
                ),
            ),
            ("where", self.extent),
            ("when", ", ".join(filter(None, (self.period, self.cadence)))),
            ("model", ", ".join(filter(None, (self.model, self.encoder)))),
            ("inputs", self.inputs),
            ("versions", ", ".join((*self.versions, *self.variants))),
            ("stores", ", ".join(self.stores)),
            ("access", self.access),
            ("licence", " – ".join(filter(None, (self.licence_line, self.licence_notes)))),
            ("attribution", self.attribution),
            ("reference", self.citation),
        )
        rows = [(name, escape(value)) for name, value in facts if value]
        if self.doi:
            link = escape(f"https://doi.org/{self.doi.removeprefix('https://doi.org/')}", quote=True)
            rows.append(("DOI", f'<a href="{link}">{escape(self.doi)}</a>'))
        if self.quirks:
            rows.append(("note", "<br>".join(map(escape, self.quirks))))
        return html.card(f"{self.name}: {self.title}" if self.title else self.name, rows)


setattr(Product, "__init__", answering(Product.__init__, "Product"))  # noqa: B010  # mypy forbids the plain way


def normalise_name(name: str) -> str:
    """Names are compared in lower case, with dashes."""
    return str(name).strip().lower().replace("_", "-").replace(" ", "-")


# --- the registry -------------------------------------------------------------------------------------------

_registry: dict[str, Product] = {}


#: Names of the package's own products, which nobody's registration replaces.
_published: set[str] = set()


_catalog_loaded = False


def published() -> list[Product]:
    """The package's own products: each module of ``catalog/`` has a ``PRODUCT`` or several ``PRODUCTS``."""
    package = importlib.import_module("geoemb_xr.catalog")
    names = (info.name for info in pkgutil.iter_modules(package.__path__))
    modules = [importlib.import_module(f"{package.__name__}.{name}") for name in names]
    return [each for module in modules for each in getattr(module, "PRODUCTS", None) or (module.PRODUCT,)]


def _load_catalog() -> None:
    """Register the package's own products, once."""
    global _catalog_loaded
    if _catalog_loaded:
        return
    for each in published():
        _add(each)
        _published.add(each.name)
    _catalog_loaded = True


def register(new: Product) -> Product:
    """Make a product known by its name.

    Parameters
    ----------
    new : Product
        The product. Registering it again unchanged does nothing. A product of your own with other facts,
        as from a cell that was run again, replaces the one before, and a note says what is different.

    Returns
    -------
    Product
        The same.

    Raises
    ------
    ValueError
        If the name is one of the package's own products, or an alias means another product already.

    Examples
    --------
    >>> import geoemb_xr as gx
    >>> gx.register(gx.Product("my-model", dims=8)).dims
    8
    >>> gx.product("my-model").dims
    8
    """
    _load_catalog()
    return _add(new)


def _add(new: Product) -> Product:
    keys = (new.name, *map(normalise_name, new.aliases))
    before = _registry.get(new.name)
    if before == new:
        return new
    for key in keys:
        known = _registry.get(key)
        if known is not None and (known.name != new.name or known.name in _published):
            raise ValueError(
                f"{key!r} is the product {known.name!r} already, with other facts; give yours another name"
            )
    if before is not None:
        different = [f.name for f in fields(Product) if getattr(before, f.name) != getattr(new, f.name)]
        say(f"product {new.name!r} is registered again, with another {', '.join(different)}")
        for key in [key for key, known in _registry.items() if known == before]:
            del _registry[key]
    _registry.update(dict.fromkeys(keys, new))
    return new


def product(name: str | Product) -> Product:
    """Find a product by its name or an alias.

    Parameters
    ----------
    name : str or Product
        Case, dashes and underscores do not matter; torchgeo's class names work too.

    Raises
    ------
    ValueError
        If there is none; the message lists the names.

    Examples
    --------
    >>> import geoemb_xr as gx
    >>> gx.product("GoogleSatelliteEmbedding").name
    'alphaearth'
    """
    if isinstance(name, Product):
        return register(name)
    _load_catalog()
    found = _registry.get(normalise_name(name))
    if found is None:
        names = sorted({each.name for each in _registry.values()})
        begin = [each for each in names if each.startswith(normalise_name(name))] if name else []
        close = difflib.get_close_matches(normalise_name(name), list(_registry), n=1)
        meant = begin or [_registry[each].name for each in close]
        hint = f" Did you mean {' or '.join(map(repr, meant))}?" if meant else ""
        raise ValueError(f"unknown product {name!r}; known are {', '.join(names)}.{hint}")
    return found


def registered() -> list[Product]:
    """All known products, by name."""
    _load_catalog()
    return sorted(set(_registry.values()), key=lambda each: each.name)


def products() -> pd.DataFrame:
    """List every known product: the survey's columns, verbatim, and ours; a row per product.

    Returns
    -------
    pandas.DataFrame
        Indexed by name. The survey's columns begin with a capital and are empty where it does not list a
        product; ``opens`` says whether this version has a reader.

    Examples
    --------
    >>> import geoemb_xr as gx
    >>> table = gx.products()
    >>> int(table.loc["alphaearth", "dims"]), table.loc["tessera", "Dtype"]
    (64, 'int8→float32')
    """
    import pandas as pd

    other = {
        "name",
        "bands",
        "survey",
        "codec",
        "other_codecs",
        "stores",
        "bibtex",
        "open",
        "coverage",
        "example",
        "text",
        "place",
    }
    columns = [f.name for f in fields(Product) if f.name not in other]
    found = registered()
    rows = [
        {
            **dict(zip(SURVEY, each.survey.split(" | ") if each.survey else [""] * len(SURVEY), strict=True)),
            **{column: _cell(getattr(each, column)) for column in columns},
            "codec": each.codec.name if each.codec else "",
            "stores": _cell(tuple(each.stores.values())),
            "opens": each.open is not None,
        }
        for each in found
    ]
    return pd.DataFrame(rows, index=pd.Index([each.name for each in found], name="product"))


def _cell(value: object) -> object:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else value


# --- what an array is ---------------------------------------------------------------------------------------


def kind_of(array: xr.DataArray) -> ArrayKind:
    """``raster`` and ``points`` are embeddings; everything else is a ``map``."""
    if BAND in array.dims and "product" in array.attrs:
        return "points" if "location" in array.dims else "raster"
    return "map"


def is_encoded(array: xr.DataArray) -> bool:
    """Whether an embedding array holds integer codes."""
    return bool(np.issubdtype(array.dtype, np.integer)) and "codec" in array.attrs


def check_embedding(array: xr.DataArray, what: str) -> Product:
    """Return the product of an embedding array; the one check that every method makes.

    Parameters
    ----------
    array : DataArray (…, band, …)
        The array.
    what : str
        The caller's name, for the message.

    Raises
    ------
    EmbeddingError
        If it is not an embedding, if its labels are not its product's, or if plain xarray turned codes into
        floats.
    """
    if BAND not in array.dims or "product" not in array.attrs:
        raise EmbeddingError(
            f"{what} needs an embedding: a DataArray with a 'band' dimension and the attribute 'product'; "
            f"got dims {tuple(array.dims)} and attributes {sorted(map(str, array.attrs))}. "
            "Open one with gx.open, or make one with gx.wrap."
        )
    found = product(array.attrs["product"])
    if np.issubdtype(array.dtype, np.floating) and "codec" in array.attrs:
        raise EmbeddingError(
            f"{what} got codes ({array.attrs['codec']}) that plain xarray turned into {array.dtype}: "
            "where, reindex, shift, pad and outer concat do so; decode first (.emb.decode()), then do that."
        )
    if np.issubdtype(array.dtype, np.integer) and "codec" not in array.attrs:
        raise EmbeddingError(
            f"{what} got integers ({array.dtype}) without the attribute 'codec', so they cannot be decoded; "
            "wrap them again with gx.wrap(array, product)."
        )
    labels = found.bands if is_encoded(array) else found.decoded_bands
    own = array.coords[BAND].values.astype(str) if BAND in array.coords else None
    if own is None or not set(own.tolist()) <= set(labels):
        raise EmbeddingError(
            f"{what} got bands that are not those of {found.name!r}: "
            f"{[] if own is None else own[:3].tolist()}… instead of {list(labels[:3])}…; "
            "a map of something else must not call its dimension 'band'."
        )
    return found


def check_band_chunk(array: xr.DataArray, what: str) -> None:
    """Raise if ``band`` is split over chunks: a vector must lie in one block."""
    chunks = array.variable.chunksizes.get(BAND, ())
    if len(chunks) > 1:
        raise EmbeddingError(
            f"{what} needs all bands in one chunk; got {len(chunks)} chunks along 'band'. "
            "Call .chunk(band=-1) first."
        )


def whole_along(array: xr.DataArray, dim: str) -> xr.DataArray:
    """An array with one chunk along a dimension, whose coordinates stay in memory: ``.chunk`` cuts them, too."""
    axis = array.get_axis_num(dim)
    if array.chunks is None or len(array.chunks[axis]) == 1:
        return array
    return array.copy(data=array.data.rechunk({axis: -1}))


def comparability_key(array: xr.DataArray) -> tuple[str, str]:
    """Product and version: only vectors with the same are comparable."""
    return str(array.attrs.get("product", "")), str(array.attrs.get("version", ""))


def check_comparable(what: str, *keys: tuple[str, str]) -> None:
    """Raise if ``(product, version)`` keys differ.

    Raises
    ------
    ComparabilityError
        Naming the spaces that would have been mixed.
    """
    different = sorted(set(keys))
    if len(different) > 1:
        names = " and ".join(f"{name} {version or '(no version)'}" for name, version in different)
        raise ComparabilityError(
            f"{what} cannot mix {names}: they are different spaces, and a distance between them means nothing. "
            "Use one of them; to learn from several, give their vectors side by side to fit_probe(X, y)."
        )


def derived_attrs(array: xr.DataArray, **more: object) -> dict[str, Any]:
    """Attributes of a map made from an embedding: where it comes from, never ``product`` or ``codec``."""
    name, version = comparability_key(array)
    source = array.attrs.get("derived_from") or f"{name} {version}".strip()
    kept = {
        "derived_from": source,
        "attribution": attribution_of(array),
        GENERATED: array.attrs.get(GENERATED),
    }
    return {key: value for key, value in {**kept, **more}.items() if value not in ("", None)}


def attribution_of(array: xr.DataArray) -> str:
    """The text that must travel with an array and whatever is made of it."""
    if "attribution" in array.attrs:
        return str(array.attrs["attribution"])
    name = array.attrs.get("product")
    return product(name).attribution if name else ""

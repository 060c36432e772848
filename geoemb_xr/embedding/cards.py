"""Encoders: a card of facts for each, its weights, and the table of those that are known."""

from __future__ import annotations

import copy
import difflib
import hashlib
import importlib
import math
import os
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, field, fields, replace
from functools import cached_property, lru_cache
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from geoemb_xr.core import html
from geoemb_xr.core.errors import EmbeddingError, MissingFileError, SourceError, check_choice, require
from geoemb_xr.core.model import Product, normalise_name
from geoemb_xr.embedding import programs
from geoemb_xr.embedding.weights import WEIGHTS

if TYPE_CHECKING:
    import pandas as pd

    from geoemb_xr.core.fitted import Fitted

#: What an encoder is given: a picture of a place, the series of one pixel, or pictures of a place over time.
EncoderKind = Literal["image", "series", "cube"]
#: What it gives: a vector per patch, a vector per chip, a vector per pixel.
Output = Literal["tokens", "chips", "pixels"]
Pooling = Literal["mean", "cls"]
#: What the numbers of a band are; each is told from the others by its range (:mod:`geoemb_xr.embedding.inputs`).
Unit = Literal["reflectance", "dn", "dB", "power", "K", "m", "degrees", "index", "any"]


@dataclass(frozen=True)
class Encoder:
    """An encoder of images: the facts that its vectors depend on, and how its network is made.

    ``Encoder("mine", dims=64, bands=("B04", "B03"), make=my_network)`` is a whole encoder.

    Parameters
    ----------
    name : str
        Lower case, with dashes.
    dims : int
        Length of a vector.
    title : str
        Full name.
    kind : {"image", "series", "cube"}
        Whether it looks at chips ``(n, band, y, x)``, at series of pixels ``(n, time, band)``, or at chips over
        time ``(n, time, band, y, x)``.
    bands : tuple of str
        Names of the bands that it takes, in this order; empty where it takes any.
    wavelengths : tuple of float
        Centres in nanometres, one per band, NaN where a band has none; empty where they do not matter.
    units : str or tuple of str
        Unit of its numbers, for all bands or for each: ``reflectance`` (1 is white), ``dn`` (reflectance times
        10,000), ``dB``, ``power``, ``K``, ``m``, ``degrees``, ``index`` or ``any``.
    mean, std : tuple of float
        Subtracted, then divided by, one per band or one for all; none where values go in as they are.
    chip : int
        Side of what it looks at, in pixels.
    patch : int
        Side of a token, in pixels.
    margin : int
        Distance in pixels that a chip looks beyond the tokens that are kept of it; a multiple of ``patch``.
    seam : (float, float) or ()
        Mean angle in degrees between neighbouring tokens of two chips and of one, measured with its weights and
        margin; empty where it is not measured.
    outputs : tuple of {"tokens", "chips", "pixels"}
        Kinds of output, the default first.
    pooling : {"mean", "cls"}
        Way in which tokens become the vector of a chip.
    prefix : int
        Tokens before those of patches, the class token first.
    steps : int
        Most dates of a series.
    optional : tuple of str
        Bands that may be absent: the encoder takes a mask for them, or makes its first layer for those there are.
    takes : tuple of {"lonlat", "days"}
        Other inputs of an encoder of pictures, by name: longitudes and latitudes of chips ``(n, 2)``, days
        since 1970 ``(n,)``, NaN where not known. Encoders of series and cubes are always told months and places.
    resolution : float, optional
        Resolution of the images it was made for, in metres.
    context_m : float, optional
        Distance around a pixel that it looks at, in metres.
    bfloat16 : bool
        Whether its whole network may work in half the precision: its vectors then change by less than a cosine of
        0.001.
    inputs : str
        Sensors and processing level, in words.
    weights : str
        Source of the weights: a path, a URL, or words that say how to get them; empty where there are none.
    sha256 : str
        Hash of the weights that its publisher gives.
    preparation : int
        Version of how images become its input here: raised whenever that changes a value.
    generated_by : str
        The generative model that makes up some of what it gives, such as absent sensors; empty for encoders that
        only look. What comes out is then a space of its own, and says so in the attribute ``generated_by``.
    licence, citation, attribution, doi : str
        Facts of the weights.
    aliases, quirks : tuple of str
        Other names that find it; what surprises, each in one sentence.
    make : callable or torch.nn.Module, optional
        ``encoder -> torch module`` with its weights, at module level so that workers can import it; or the module
        itself, which then travels with the tasks and whose parameters say the version. Without it ``weights`` is a
        file of ``torch.export`` (``.pt2``) or ONNX.

    Examples
    --------
    >>> import geoemb_xr as gx
    >>> encoder = gx.encoder("rcf")
    >>> encoder.dims, encoder.outputs
    (512, ('chips',))
    """

    name: str
    dims: int
    _: KW_ONLY
    title: str = ""
    kind: EncoderKind = "image"
    bands: tuple[str, ...] = ()
    wavelengths: tuple[float, ...] = ()
    units: Unit | tuple[Unit, ...] = "any"
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    chip: int = 224
    patch: int = 16
    margin: int = 0
    seam: tuple[float, ...] = ()
    outputs: tuple[Output, ...] = ("tokens", "chips")
    pooling: Pooling = "mean"
    prefix: int = 0
    steps: int = 1
    optional: tuple[str, ...] = ()
    takes: tuple[Literal["lonlat", "days"], ...] = ()
    resolution: float | None = None
    context_m: float | None = None
    bfloat16: bool = False
    inputs: str = ""
    weights: str = ""
    sha256: str = ""
    preparation: int = 1
    generated_by: str = ""
    licence: str = ""
    citation: str = ""
    attribution: str = ""
    doi: str = ""
    aliases: tuple[str, ...] = ()
    quirks: tuple[str, ...] = ()
    make: Callable[[Encoder], Any] | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.__setstate__(self.__dict__)
        if not self.name or self.name != normalise_name(self.name):
            raise ValueError(f"an encoder's name is lower case with dashes; got {self.name!r}")
        for what in ("dims", "chip", "patch", "steps"):
            if getattr(self, what) < 1:
                raise ValueError(f"{what} of an encoder is at least 1; got {getattr(self, what)}")
        check_choice("kind", self.kind, ("image", "series", "cube"))
        check_choice("pooling", self.pooling, ("mean", "cls"))
        if not self.outputs:
            raise ValueError(f"encoder {self.name!r} needs outputs: some of 'tokens', 'chips', 'pixels'")
        for each in self.outputs:
            check_choice("output", each, ("tokens", "chips", "pixels"))
        for told in self.takes:
            check_choice("takes", told, ("lonlat", "days"))
        if self.margin < 0 or self.margin % self.patch or 2 * self.margin >= self.chip:
            raise ValueError(
                f"margin is a multiple of the patch ({self.patch}), below half the chip ({self.chip}); got "
                f"{self.margin}"
            )
        if "tokens" in self.outputs and self.chip % self.patch:
            raise ValueError(f"a chip is whole patches of {self.patch} pixels; got {self.chip}")
        count = len(self.bands)
        for what in ("wavelengths", "mean", "std"):
            length = len(getattr(self, what))
            if length and count and length not in (1, count):
                raise ValueError(f"{what} has {length} values for {count} bands")
        if not isinstance(self.units, str) and len(self.units) != count:
            raise ValueError(f"units has {len(self.units)} values for {count} bands")
        for unit in (self.units,) if isinstance(self.units, str) else self.units:
            check_choice("units", unit, get_args(Unit))

    def __setstate__(self, state: dict[str, Any]) -> None:
        # two NaN are equal only if they are one object, and a card is a value: the same in every process
        told = tuple(math.nan if wave != wave else wave for wave in state["wavelengths"])
        self.__dict__.update(state, wavelengths=told)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the weights it loads: of the file they lie in where that is here, else as published."""
        if self.weights and Path(self.weights).is_file():
            stat = os.stat(self.weights)
            return _hash_file(str(self.weights), stat.st_size, stat.st_mtime_ns)
        if self.sha256:
            return self.sha256
        if hasattr(self.make, "state_dict"):
            return _hash_module(self.make)
        return hashlib.sha256(f"{self.weights} {self.dims} {self.bands}".encode()).hexdigest()

    @property
    def version(self) -> str:
        """Weights and preparation: vectors of two versions are never compared."""
        return f"{self.digest[:8]}-p{self.preparation}"

    @property
    def product(self) -> Product:
        """The product that its vectors are of."""
        tokens = (
            self.patch if self.outputs[0] == "tokens" else 1 if self.outputs[0] == "pixels" else self.chip
        )
        return Product(
            f"{self.name}-encoder",
            dims=self.dims,
            title=f"Embeddings by {self.title or self.name}",
            kind="pixel" if self.outputs[0] == "pixels" else "patch",
            resolution=None if self.resolution is None else self.resolution * tokens,
            context_m=self.context_m,
            model=self.title or self.name,
            inputs=self.inputs,
            citation=self.citation,
            doi=self.doi,
            licence=self.licence,
            attribution=self.attribution,
            quirks=self.quirks,
        )

    def of_pixels(self) -> Encoder:
        """The same network for series of single pixels, whose vectors are a space of their own.

        Examples
        --------
        >>> import geoemb_xr as gx
        >>> gx.encoder("galileo-nano").of_pixels().product.name
        'galileo-nano-pixels-encoder'
        """
        if self.kind != "cube":
            return self
        return replace(
            self, name=f"{self.name}-pixels", kind="series", outputs=("pixels",), pooling="mean", prefix=0,
            chip=1, patch=1, margin=0, context_m=None if self.resolution is None else self.resolution / 2,
        )  # fmt: skip

    def with_chip(self, side: int) -> Encoder:
        """The same encoder for chips of another size, if its network takes any.

        Parameters
        ----------
        side : int
            In pixels; whole patches. Its margin shrinks where a chip would be all margin, and what it sees around
            a pixel is that much smaller or larger.

        Examples
        --------
        >>> import geoemb_xr as gx
        >>> gx.encoder("ssl4eo-vits16-dino").with_chip(64).margin
        16
        """
        largest = max((side - self.patch) // 2 // self.patch * self.patch, 0)
        around = None if self.context_m is None else self.context_m * side / self.chip
        return replace(self, chip=side, margin=min(self.margin, largest), context_m=around)

    def with_bands(self, bands: Sequence[str]) -> Encoder:
        """The same encoder for some of its bands, if its first layer is made for those there are.

        Parameters
        ----------
        bands : sequence of str
            Some of its own bands.
        """
        at = [self.bands.index(b) for b in bands]
        count = len(self.bands)
        given: dict[str, Any] = {}
        for what in ("wavelengths", "mean", "std", "units"):
            own = getattr(self, what)
            given[what] = own if isinstance(own, str) or len(own) != count else tuple(own[k] for k in at)
        kept = set(bands)
        return replace(
            self, bands=tuple(bands), optional=tuple(b for b in self.optional if b in kept), **given
        )

    def load(self, device: str = "cpu") -> Any:
        """Make its network, with its weights, ready to run on a device.

        Parameters
        ----------
        device : str
            Device of torch.

        Returns
        -------
        torch.nn.Module
            The network in evaluation mode, without gradients.

        Raises
        ------
        SourceError
            If its weights are not at hand; the message says where they are had.
        EmbeddingError
            If ``make`` gives no module.
        """
        torch = require("torch", "encoders")
        made: Any
        if self.make is None:
            made = programs.load_program(self._program())
        else:  # one that was given is not to be changed
            made = copy.deepcopy(self.make) if hasattr(self.make, "state_dict") else self.make(self)
        if not isinstance(made, torch.nn.Module):
            raise EmbeddingError(
                f"make= of the encoder {self.name!r} gives a torch.nn.Module, or is one; it gave a "
                f"{type(made).__name__}"
            )
        for each in made.parameters():  # one by one, since a module of TorchScript cannot do so itself
            each.requires_grad_(False)
        return made.eval().to(device)

    def to_onnx(
        self, path: str | os.PathLike[str], model: Fitted | None = None, *, quantize: bool = True
    ) -> Path:
        """Write the encoder as an ONNX graph, with a fitted model after it: from images to labels without torch.

        It takes ``series (n, time, band)``, float32 in the units of the bands and NaN where absent, ``months``
        ``(n, time)`` from 0, and ``lonlat (n, 2)``. It gives ``vectors (n, dims)``, or what ``model.to_onnx`` does.
        Needs the extras ``encoders`` and ``onnx``, and to be run onnxruntime alone.

        Parameters
        ----------
        path : path
            ``.onnx`` is added where it has no ending.
        model : Probe, PCA, KMeans, …, optional
            Fitted on vectors of this encoder.
        quantize : bool
            Store weights as int8: a third of the bytes, and vectors that are turned by some degrees.

        Returns
        -------
        Path
            The path of the file.

        Raises
        ------
        EmbeddingError
            If the encoder does not take the series of a pixel, as Presto does.
        ComparabilityError
            If the model was fitted on vectors of another encoder.
        """
        from geoemb_xr.embedding.exporting import export

        return export(self, path, model, quantize=quantize)

    def _program(self) -> Path:
        path = Path(self.weights)
        if path.suffix in programs.SUFFIXES and not path.is_file():
            raise MissingFileError(f"there is no network at {self.weights!r} for the encoder {self.name!r}")
        if path.suffix not in programs.SUFFIXES:
            raise SourceError(
                f"encoder {self.name!r} has no network: give it make=, a function that makes one, or weights=, a "
                f"file of {' or '.join(programs.SUFFIXES)}; got {self.weights!r}"
            )
        return path

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        facts = tuple(getattr(self, each.name) for each in fields(self) if each.name != "make")
        return ("Encoder", facts, self.digest, getattr(self.make, "__qualname__", ""))

    def __repr__(self) -> str:
        return (
            f"<Encoder {self.name}: {self.title or 'no title'}, {self.dims} dims, {', '.join(self.outputs)}>"
        )

    def _repr_html_(self) -> str:
        chip = f"{self.chip} × {self.chip} pixels" if self.kind != "series" else ""
        sees = ", ".join(filter(None, (chip, f"up to {self.steps} dates" if self.kind != "image" else "")))
        facts = (
            ("vectors", f"{self.dims} bands, for {', '.join(self.outputs)}"),
            ("looks at", sees + (f" of {self.resolution:g} m" if self.resolution else "")),
            ("bands", ", ".join(self.bands) or "any"),
            ("inputs", self.inputs),
            ("tokens", f"{self.patch} pixels, margin {self.margin}" if "tokens" in self.outputs else ""),
            (
                "seam",
                "{:.1f}° between tokens of two chips, {:.1f}° of one".format(*self.seam) if self.seam else "",
            ),
            ("weights", self.weights),
            ("version", self.version),
            ("licence", self.licence),
            ("reference", self.citation),
        )
        rows = [(name, escape(value)) for name, value in facts if value]
        if self.quirks:
            rows.append(("note", "<br>".join(map(escape, self.quirks))))
        return html.card(f"{self.name}: {self.title}" if self.title else self.name, rows)


def _hash_module(module: Any) -> str:
    """SHA-256 of a network's parameters and of how it is built."""
    found = hashlib.sha256(repr(module).encode())
    for name, value in module.state_dict().items():
        found.update(name.encode())
        found.update(value.detach().cpu().float().numpy().tobytes())
    return found.hexdigest()


@lru_cache(maxsize=64)
def _hash_file(path: str, size: int, modified: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- the table ------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _families() -> list[Any]:
    """The modules of this room: a family is one file, with a tuple ``ENCODERS`` of cards.

    It may have ``FINDERS``, too: from how a name begins to what makes a card of the name.
    """
    package = importlib.import_module("geoemb_xr.embedding")
    names = [info.name for info in pkgutil.iter_modules(package.__path__)]
    return [importlib.import_module(f"geoemb_xr.embedding.{name}") for name in names]


@lru_cache(maxsize=1)
def _known() -> dict[str, Encoder]:
    """Encoders of all families, by their names and aliases."""
    found: dict[str, Encoder] = {}
    for module in _families():
        for each in getattr(module, "ENCODERS", ()):
            for key in (each.name, *map(normalise_name, each.aliases)):
                if key in found:
                    raise ValueError(
                        f"two encoders are called {key!r}: {found[key].name!r} and {each.name!r}"
                    )
                found[key] = each
    return found


def encoder(name: str | Encoder, *, weights: str | os.PathLike[str] | None = None) -> Encoder:
    """Find an encoder by its name or an alias, with weights of your own if you have some.

    Parameters
    ----------
    name : str or Encoder
        Case, dashes and underscores do not matter. ``timm/…`` finds any network that timm has weights for.
    weights : path, optional
        A file of weights in place of the published ones, or a folder with one. Other weights are another version.

    Raises
    ------
    ValueError
        If there is none of that name; the message lists them.
    EmbeddingError
        If it is a network without a card.
    SourceError
        If the file of weights is not there, or a folder holds several or none.

    Examples
    --------
    >>> import geoemb_xr as gx
    >>> gx.encoder("RCF").name
    'rcf'
    """
    finders = {k: v for module in _families() for k, v in getattr(module, "FINDERS", {}).items()}
    if isinstance(name, Encoder):
        found = name
    elif find := next((make for prefix, make in finders.items() if str(name).startswith(prefix)), None):
        found = find(name)
    elif not isinstance(name, str):
        raise EmbeddingError(
            f"an encoder is a name of gx.encoders() or a gx.Encoder; got a {type(name).__name__}. A network of "
            "your own needs a card: gx.Encoder('mine', dims=…, bands=…, units=…, chip=…, patch=…, make=network)"
        )
    else:
        known = _known()
        key = normalise_name(name)
        if key not in known:
            close = difflib.get_close_matches(key, list(known), n=1)
            hint = f" Did you mean {known[close[0]].name!r}?" if close else ""
            names = ", ".join(sorted({each.name for each in known.values()}))
            raise ValueError(f"unknown encoder {name!r}; known are {names}.{hint}")
        found = known[key]
    if weights is None:
        return found
    path = Path(weights)
    if not path.exists():
        raise SourceError(f"there are no weights at {str(path)!r} for the encoder {found.name!r}")
    if path.is_dir():
        path = _only_weights(path)
    return replace(found, weights=str(path))


def _only_weights(folder: Path) -> Path:
    """The one file of weights in a folder, as hubs give it."""
    inside = sorted(p for p in folder.iterdir() if p.suffix in (*WEIGHTS, *programs.SUFFIXES) and p.is_file())
    if len(inside) != 1:
        held = ", ".join(p.name for p in inside[:5]) or "none"
        raise SourceError(
            f"weights={str(folder)!r} is a folder, and its files of weights are {held}: give the path of one file "
            f"({', '.join((*WEIGHTS, *programs.SUFFIXES))})"
        )
    return inside[0]


def encoders() -> pd.DataFrame:
    """List every encoder known here, a row each.

    Returns
    -------
    pandas.DataFrame
        Indexed by name: what it takes and gives, and whose weights it has.

    Examples
    --------
    >>> import geoemb_xr as gx
    >>> table = gx.encoders()
    >>> int(table.loc["rcf", "dims"]), table.loc["rcf", "outputs"]
    (512, 'chips')
    """
    import pandas as pd

    columns = [each.name for each in fields(Encoder) if each.name not in ("name", "make", "wavelengths")]
    found = sorted({each.name: each for each in _known().values()}.items())
    rows = [
        {**{column: _cell(getattr(each, column)) for column in columns}, "version": each.version}
        for _, each in found
    ]
    return pd.DataFrame(rows, index=pd.Index([name for name, _ in found], name="encoder"))


def _cell(value: object) -> object:
    if not isinstance(value, tuple):
        return value
    return ", ".join(f"{each:g}" if isinstance(each, float) else str(each) for each in value)

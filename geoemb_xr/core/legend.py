"""Names and colours of a class map, and the attributes that carry them.

A class map is uint8 or uint16 with 0 for no data. Its attributes are CF's ``flag_values`` and
``flag_meanings`` (where a space becomes an underscore) and a JSON ``legend`` that keeps the names as they are.
"""

from __future__ import annotations

import colorsys
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from geoemb_xr.core.errors import EmbeddingError

#: The largest class code: 65,535 is left for what readers use as "no class".
MAX_CODE = 65_534
#: Attribute of labels, rasters or tables, that says of which source they are.
SOURCE = "labels_of"
# Distinct in hue and lightness, so that neighbours in a list differ for colour-blind readers too.
_PALETTE = (
    "#3d7ea6", "#d99a5b", "#2f6b3a", "#b5483a", "#e8c547", "#7b5ea7", "#a8c66c", "#8c6d4f",
    "#5fb3b3", "#d77fa1", "#4b4f8c", "#9a9a9a",
)  # fmt: skip
# Land cover has colours that readers expect; of several words in a name the first line here decides.
_EXPECTED = (
    (("water", "waterbody", "freshwater", "seawater", "sea", "lake", "river", "ocean"), "#3d7ea6"),
    (("mangrove", "wetland", "marsh", "marshland", "flooded"), "#5fb3b3"),
    (("forest", "forested", "tree", "wood", "woods", "wooded", "woodland"), "#2f6b3a"),
    (("grass", "grasses", "grassland", "pasture", "meadow"), "#a8c66c"),
    (("shrub", "shrubland", "scrub", "scrubland"), "#8f9e57"),
    (("built", "builtup", "urban", "impervious", "settlement", "city", "cities"), "#b5483a"),
    (("maize", "corn"), "#e8c547"),
    (("wheat", "cereal", "barley"), "#d99a5b"),
    (("crop", "cropland", "cultivated", "farm", "farmland"), "#e0b458"),
    (("bare", "sand", "soil", "rock"), "#b8a58c"),
    (("snow", "ice", "glacier"), "#dfe9f2"),
)
#: Words that make a name the opposite of another word in it.
_NEGATIONS = frozenset({"non", "not", "no", "without", "never", "free", "loss", "lost", "former", "less"})


@dataclass(frozen=True)
class Legend:
    """The classes of a map: code, name and colour of each, in order.

    Parameters
    ----------
    values : tuple of int
        Codes, 1 to 65,534; 0 is no data.
    names : tuple of str
        The names as the user wrote them.
    colours : tuple of str
        ``#rrggbb``.

    Examples
    --------
    >>> legend = Legend.of_names(["water", "dry grass"])
    >>> legend.values, legend.attrs()["flag_meanings"]
    ((1, 2), 'water dry_grass')
    """

    values: tuple[int, ...]
    names: tuple[str, ...]
    colours: tuple[str, ...]

    def __post_init__(self) -> None:
        if not len(self.values) == len(self.names) == len(self.colours):
            raise ValueError("a legend needs as many values as names and colours")
        if wrong := [each for each in self.colours if not re.fullmatch(r"#?[0-9a-fA-F]{6,8}", each)]:
            raise ValueError(f"colours are written as '#rrggbb'; got {wrong[0]!r}")
        if len(set(self.values)) != len(self.values):
            raise ValueError(f"a legend has each value once; got {self.values}")
        if any(not 1 <= value <= MAX_CODE for value in self.values):
            raise ValueError(f"class codes are 1 to {MAX_CODE} (0 is no data); got {self.values}")

    @classmethod
    def of_names(
        cls,
        names: Sequence[object],
        *,
        values: Sequence[int] | None = None,
        colours: Sequence[str] | Mapping[str, str] | None = None,
    ) -> Legend:
        """A legend with codes 1…K and the default colours, where none are given."""
        texts = tuple(str(name) for name in names)
        codes = tuple(int(v) for v in values) if values is not None else tuple(range(1, len(texts) + 1))
        if colours is None or isinstance(colours, Mapping):
            return cls(codes, texts, _choose_colours(texts, colours or {}))
        return cls(codes, texts, tuple(colours))

    @property
    def dtype(self) -> np.dtype[Any]:
        """The smallest type that holds the codes."""
        return np.dtype(np.uint8 if max(self.values, default=0) < 255 else np.uint16)

    def attrs(self) -> dict[str, Any]:
        """Attributes of a class map."""
        entries = zip(self.values, self.names, self.colours, strict=True)
        return {
            "flag_values": list(self.values),
            "flag_meanings": " ".join(name.strip().replace(" ", "_") or "_" for name in self.names),
            "legend": json.dumps([{"value": v, "name": n, "colour": c} for v, n, c in entries]),
        }

    def rgba(self) -> np.ndarray:
        """A lookup table from code to RGBA, uint8, shape (max code + 1, 4); 0 is transparent."""
        table = np.zeros((max(self.values, default=0) + 1, 4), np.uint8)
        for value, colour in zip(self.values, self.colours, strict=True):
            table[value] = (*bytes.fromhex(colour.lstrip("#")[:6]), 255)
        return table


def _choose_colours(names: Sequence[str], given: Mapping[str, str]) -> tuple[str, ...]:
    """Colours as given, as expected for a land cover, else from the palette, none twice if it can be helped."""
    chosen: dict[str, str] = {name: given[name] for name in names if name in given}
    for name in names:
        expected = expected_colour(name)
        if name not in chosen and expected is not None and expected not in chosen.values():
            chosen[name] = expected
    i = 0
    for name in names:
        while name not in chosen:
            colour = default_colour(i)
            i += 1
            if colour not in chosen.values():
                chosen[name] = colour
    return tuple(chosen[name] for name in names)


def expected_colour(name: str) -> str | None:
    """The colour that readers expect of a land cover, None where the name says nothing.

    Examples
    --------
    >>> expected_colour("Open water"), expected_colour("non-water"), expected_colour("class 7")
    ('#3d7ea6', None, None)
    """
    words = {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name)}
    if words & _NEGATIONS:
        return None
    words |= {word.removesuffix("s") for word in words}
    return next((colour for keys, colour in _EXPECTED if words.intersection(keys)), None)


def default_colour(i: int) -> str:
    """The i-th default colour; beyond the palette, hues a golden angle apart."""
    if i < len(_PALETTE):
        return _PALETTE[i]
    rgb = colorsys.hls_to_rgb((i * 0.618034) % 1.0, 0.35 + 0.3 * ((i // 7) % 2), 0.55)
    return "#" + "".join(f"{round(255 * v):02x}" for v in rgb)


def legend_of(array: xr.DataArray) -> Legend:
    """The legend of a class map: our JSON, or the CF attributes that others write.

    Raises
    ------
    EmbeddingError
        If the array is not a class map.
    """
    if "legend" in array.attrs:
        entries = json.loads(array.attrs["legend"])
        columns = [tuple(entry[key] for entry in entries) for key in ("value", "name", "colour")]
        return Legend(tuple(int(v) for v in columns[0]), columns[1], columns[2])
    if "flag_values" in array.attrs and "flag_meanings" in array.attrs:
        values, names = _flags(array.attrs["flag_values"], array.attrs["flag_meanings"])
        kept = [(v, n) for v, n in zip(values, names, strict=True) if v != 0]
        return Legend.of_names([n for _, n in kept], values=[v for v, _ in kept])
    raise EmbeddingError(
        f"not a class map: it has neither 'legend' nor 'flag_values'; attributes are {sorted(array.attrs)}"
    )


def _flags(values: Any, meanings: Any) -> tuple[list[int], list[str]]:
    """Codes and names of CF's attributes, which may be arrays or text (``"1b, 2b"``).

    Raises
    ------
    EmbeddingError
        If they are not as many codes as names.
    """
    stated = re.split(r"[\s,]+", values.strip()) if isinstance(values, str) else np.ravel(values).tolist()
    names = meanings.split() if isinstance(meanings, str) else [str(each) for each in np.ravel(meanings)]
    try:
        codes = [float(re.sub(r"(?<=\d)(?:[uU]?[bBsSlL]+|[uU])$", "", str(each))) for each in stated]
    except ValueError:
        codes = []
    if not codes or len(codes) != len(names) or not all(map(float.is_integer, codes)):
        raise EmbeddingError(
            f"a class map has as many whole numbers in 'flag_values' as names in 'flag_meanings'; got "
            f"{values!r} and {meanings!r}"
        )
    return [int(each) for each in codes], names


def is_class_map(array: xr.DataArray) -> bool:
    """Whether an array has integers with a legend."""
    known = "legend" in array.attrs or {"flag_values", "flag_meanings"} <= set(array.attrs)
    return known and bool(np.issubdtype(array.dtype, np.integer))


def encode_classes(labels: Any, *, colours: Mapping[str, str] | None = None) -> tuple[np.ndarray, Legend]:
    """Labels as class codes: the user's own where they are whole numbers of 1 to 65,534, else 1…K.

    Parameters
    ----------
    labels : array of str, bool or int (n,)
        No missing values.
    colours : mapping of name to colour, optional
        Others get a default.

    Returns
    -------
    codes : ndarray (n,)
        uint8 or uint16.
    legend : Legend
        In sorted order of the labels.

    Examples
    --------
    >>> encode_classes(["b", "a", "b"])[0].tolist()
    [2, 1, 2]
    >>> encode_classes([40, 11])[0].tolist()
    [40, 11]
    """
    values = np.asarray(labels)
    unique, inverse = np.unique(
        values if values.dtype.kind in "biu" else values.astype(str), return_inverse=True
    )
    own = unique.dtype.kind in "iu" and unique.size and unique.min() >= 1 and unique.max() <= MAX_CODE
    legend = Legend.of_names(unique.tolist(), values=unique.tolist() if own else None, colours=colours)
    return np.asarray(legend.values, legend.dtype)[inverse], legend

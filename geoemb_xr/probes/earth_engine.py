"""Linear probes on AlphaEarth as scripts for Earth Engine, where its vectors lie decoded for the whole world."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from geoemb_xr.core.errors import EmbeddingError
from geoemb_xr.core.model import product

if TYPE_CHECKING:
    from geoemb_xr.probes.probe import Probe

_PRODUCT = "alphaearth"
_COLLECTION = "GOOGLE/SATELLITE_EMBEDDING/V1/ANNUAL"
_LINEAR = {"ridge": ("weights", "bias"), "logistic": ("weights", "bias"), "centroid": ("centres",)}

_HEAD = """\
// {title}, made by geoemb_xr {software}.
// Fitted on {space}.
// {attribution}
// Paste it into the Code Editor, or load it with require().

var BANDS = {bands};
// One row a {row}: the weight of each band, in this order.
var WEIGHTS = {weights};
var BIAS = {bias};

// Codes, as the public GeoTIFFs have them (ee.Image.loadGeoTIFF), to the vectors that the catalogue has.
exports.decode = function(codes) {{
  var there = codes.neq(-128).reduce(ee.Reducer.allNonZero());
  var q = codes.toFloat().rename(BANDS);
  return q.multiply(q.abs()).divide(127.5 * 127.5).updateMask(there);
}};

exports.vectors = function(year) {{
  var start = ee.Date.fromYMD(year, 1, 1);
  return ee.ImageCollection({collection}).filterDate(start, start.advance(1, 'year')).mosaic();
}};

exports.scores = function(vectors) {{
  var x = vectors.select(BANDS);
{unit}  return ee.Image.cat(WEIGHTS.map(function(weights, i) {{
    return x.multiply(ee.Image.constant(weights)).reduce(ee.Reducer.sum()).add(BIAS[i]);
  }})).rename(NAMES);
}};
"""
_UNIT = "  x = x.divide(x.pow(2).reduce(ee.Reducer.sum()).sqrt());\n"

_CLASSES = """
var CODES = {codes};
var CLASSES = {classes};
var COLOURS = {colours};
var NAMES = CODES.map(function(code) {{ return 'class_' + code; }});
var TEMPERATURE = {temperature};

exports.probabilities = function(vectors) {{
  var scores = exports.scores(vectors);
  var odds = scores.subtract(scores.reduce(ee.Reducer.max())).divide(TEMPERATURE).exp();
  return odds.divide(odds.reduce(ee.Reducer.sum()));
}};

exports.label = function(vectors) {{
  var best = exports.scores(vectors).toArray().arrayArgmax().arrayGet(0);
  var places = CODES.map(function(code, i) {{ return i; }});
  return best.remap(places, CODES).rename('label').set({{
    label_class_values: CODES, label_class_names: CLASSES, label_class_palette: COLOURS
  }});
}};

Map.addLayer(exports.label(exports.vectors({year})), {{}}, {target});
Map.addLayer(exports.probabilities(exports.vectors({year})).reduce(ee.Reducer.max()),
  {{min: 0, max: 1}}, 'largest probability', false);
"""

_VALUES = """
var NAMES = ['value'];

Map.addLayer(exports.scores(exports.vectors({year})), {{}}, {target});
"""


def script(probe: Probe, year: int) -> str:
    """The text of a script; see :meth:`geoemb_xr.Probe.to_earth_engine`."""
    _check(probe)
    weights, *bias = (probe.parameters[name] for name in _LINEAR[probe.method])
    legend = probe.legend
    target = _literal(probe.target)
    text = _HEAD.format(
        title=f"{target}, a {probe.method} probe",
        software=_version(),
        space=_literal(f"{probe.product} {probe.version}, {sum(probe.counts.values())} labels"),
        attribution=_literal(probe.attribution),
        bands=_literal(list(probe.bands)),
        row="class" if legend is not None else "value",
        weights="[\n" + ",\n".join(f"  [{_numbers(row)}]" for row in weights) + "\n]",
        bias=f"[{_numbers(bias[0] if bias else np.zeros(len(weights), np.float32))}]",
        collection=_literal(_COLLECTION),
        unit=_UNIT if probe.method == "centroid" else "",
    )
    if legend is None:
        return text + _VALUES.format(year=int(year), target=target)
    return text + _CLASSES.format(
        codes=_literal(list(legend.values)),
        classes=_literal(list(legend.names)),
        colours=_literal([colour.removeprefix("#") for colour in legend.colours]),
        temperature=float(probe.temperature),
        year=int(year),
        target=target,
    )


def _check(probe: Probe) -> None:
    if probe.product != _PRODUCT:
        name = repr(probe.product) if probe.product else "plain vectors"
        raise EmbeddingError(
            f"Earth Engine has the vectors of {_PRODUCT!r} only; this probe was fitted on {name}: "
            "to_onnx writes probes of any product"
        )
    if probe.method not in _LINEAR:
        raise EmbeddingError(
            f"a {probe.method} probe is not a linear formula, which to_earth_engine writes: "
            f"fit one with method={', '.join(map(repr, _LINEAR))}, or use to_onnx"
        )
    strange = sorted(set(probe.bands) - set(product(_PRODUCT).bands))
    if strange:
        raise EmbeddingError(f"Earth Engine has no bands {strange[:3]} of {_PRODUCT}")


def _version() -> str:
    from geoemb_xr._version import __version__

    return __version__


def _literal(value: Any) -> str:
    """Text and lists as JavaScript has them, on one line: a name cannot end a comment and go on as code."""
    return json.dumps(value)


def _numbers(values: Iterable[np.float32]) -> str:
    """The shortest decimals that are these float32."""
    return ", ".join(str(np.float32(each)) for each in values)

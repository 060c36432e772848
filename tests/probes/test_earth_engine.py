"""Scripts for Earth Engine: run as they are, against an Earth Engine of our own that holds a few pixels."""

import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import geoemb_xr as gx
from geoemb_xr.core.errors import EmbeddingError

LABELS = gx.testing.scene().points(60, radius=170)

#: The few operations that scripts use, on images that are lists of bands, each a list of pixels.
ENGINE = """
function wrap(bands, names) {
  var each = function(f) { return function(other) {
    var own = function(b, p) {
      if (typeof other === 'number' || other === undefined) return other;
      return other.bands.length === 1 ? other.bands[0][p] : other.bands[b][p];
    };
    var one = function(band, b) { return band.map(function(v, p) { return f(v, own(b, p)); }); };
    return wrap(bands.map(one), names);
  }; };
  return {
    bands: bands, names: names,
    multiply: each(function(a, b) { return a * b; }), divide: each(function(a, b) { return a / b; }),
    add: each(function(a, b) { return a + b; }), subtract: each(function(a, b) { return a - b; }),
    pow: each(function(a, b) { return Math.pow(a, b); }), neq: each(function(a, b) { return a !== b ? 1 : 0; }),
    sqrt: each(function(a) { return Math.sqrt(a); }), exp: each(function(a) { return Math.exp(a); }),
    abs: each(function(a) { return Math.abs(a); }), toFloat: each(function(a) { return a; }),
    updateMask: each(function(a, keep) { return keep ? a : null; }),
    select: function(some) { return wrap(some.map(function(n) { return bands[names.indexOf(n)]; }), some); },
    rename: function(some) { return wrap(bands, [].concat(some)); },
    reduce: function(reducer) {
      var pixel = function(_, p) { return bands.map(function(b) { return b[p]; }).reduce(reducer); };
      return wrap([bands[0].map(pixel)]);
    },
    toArray: function() { return { arrayArgmax: function() { return { arrayGet: function(at) {
      return wrap([bands[0].map(function(_, p) {
        var own = bands.map(function(b) { return b[p]; });
        return own.indexOf(Math.max.apply(null, own));
      })]);
    } }; } }; },
    remap: function(from, to) {
      return wrap(bands.map(function(b) { return b.map(function(v) { return to[from.indexOf(v)]; }); }));
    },
    set: function() { return this; }
  };
}
var INPUT = JSON.parse(require('fs').readFileSync(0));
var ee = {
  Image: { constant: function(values) { return wrap(values.map(function(v) {
             return INPUT.bands[0].map(function() { return v; }); })); },
           cat: function(images) { return wrap(images.map(function(i) { return i.bands[0]; })); } },
  Reducer: { sum: function() { return function(a, b) { return a + b; }; },
             max: function() { return function(a, b) { return Math.max(a, b); }; },
             allNonZero: function() { return function(a, b) { return a && b ? 1 : 0; }; } },
  Date: { fromYMD: function(year) { return { advance: function() { return this; } }; } },
  ImageCollection: function(id) {
    if (id !== 'GOOGLE/SATELLITE_EMBEDDING/V1/ANNUAL') throw id;
    return { filterDate: function() { return { mosaic: function() { return wrap(INPUT.bands, INPUT.names); } }; } };
  }
};
var Map = { addLayer: function() {} };
"""


@pytest.fixture(scope="module")
def node():
    """A JavaScript engine: one on the path, or the one that playwright brings."""
    playwright = pytest.importorskip("playwright")
    own = Path(playwright.__file__).parent / "driver" / "node"
    return shutil.which("node") or (str(own) if own.exists() else pytest.skip("no JavaScript here"))


@pytest.fixture(scope="module")
def codes():
    return gx.testing.synthetic("alphaearth", shape=(40, 36), missing=True, decode=False).emb.year(2018)


def run(node, text, vectors, names, what):
    """Bands ``(k, n)`` that an expression of a script gives for vectors ``(band, n)``."""
    # the names of bands are in another order than the script's, as they may be anywhere
    given = json.dumps({"bands": vectors[::-1].tolist(), "names": names[::-1]})
    code = f"{ENGINE}\nvar exports = {{}};\n{text}\nconsole.log(JSON.stringify({what}.bands));"
    done = subprocess.run([node, "-e", code], input=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return np.array(json.loads(done.stdout), float)


@pytest.mark.parametrize("method", ["logistic", "ridge", "centroid"])
def test_a_script_scores_as_the_probe_does(node, codes, method):
    probe = codes.emb.fit_probe(LABELS, target="land_cover", method=method, cv=2)
    text = probe.to_earth_engine(year=2018)
    vectors = codes.emb.decode().values.reshape(64, -1)
    there = np.isfinite(vectors).all(axis=0)
    vectors, names = vectors[:, there], list(probe.bands)
    ours = probe.head.scores(probe.parameters, vectors)
    np.testing.assert_allclose(
        run(node, text, vectors, names, "exports.scores(exports.vectors(2018))"), ours, atol=1e-5
    )
    proba = run(node, text, vectors, names, "exports.probabilities(exports.vectors(2018))")
    np.testing.assert_allclose(proba, probe.derive(ours, "proba").T, atol=1e-5)
    (label,) = run(node, text, vectors, names, "exports.label(exports.vectors(2018))")
    np.testing.assert_array_equal(label, probe.derive(ours, "label"))
    (first, *_) = run(
        node, text, codes.values.reshape(64, -1), names, "exports.decode(exports.vectors(2018))"
    )
    np.testing.assert_array_equal(np.isnan(first), ~there)  # null becomes NaN


def test_the_numbers_are_those_of_the_probe(codes):
    labels = LABELS.assign(height=np.arange(60) % 7 + 0.5)[["lon", "lat", "height"]]
    probe = codes.emb.fit_probe(labels, target="height", method="ridge", cv=0)
    text = probe.to_earth_engine()
    found = {
        name: json.loads(re.search(rf"var {name} = (\[.*?\]);", text, re.DOTALL)[1])
        for name in ("BANDS", "WEIGHTS", "BIAS")
    }
    assert tuple(found["BANDS"]) == probe.bands
    vectors = codes.emb.decode().values.reshape(64, -1)
    scores = np.array(found["WEIGHTS"]) @ vectors + np.array(found["BIAS"])[:, None]
    np.testing.assert_allclose(scores[0], codes.emb.predict(probe).values.ravel(), atol=1e-5)
    assert "CLASSES" not in text
    assert "Google" in text
    assert text.isascii()


def test_names_stay_names(node, codes):
    """What a file says must not become code, in a comment or elsewhere."""
    probe = codes.emb.fit_probe(LABELS, target="land_cover", method="ridge", cv=0)
    evil = "x\n'}; throw 'run'; //\u2028\"*/"
    legend = replace(probe.legend, names=(evil, *probe.legend.names[1:]))
    text = replace(probe, attribution=evil, target=evil, legend=legend, version=evil).to_earth_engine()
    run(node, text, np.ones((64, 2)), list(probe.bands), "exports.scores(exports.vectors(2018))")


@pytest.mark.parametrize("method", ["knn", "mlp"])
def test_what_is_not_linear_is_refused(codes, method):
    probe = codes.emb.fit_probe(LABELS, target="land_cover", method="ridge", cv=0)
    with pytest.raises(
        EmbeddingError, match=f"a {method} probe is not a linear formula.*'ridge', 'logistic', 'centroid'"
    ):
        replace(probe, method=method).to_earth_engine()


def test_other_products_are_refused():
    da = gx.testing.synthetic("tessera", shape=(40, 36), years=(2018,))
    probe = da.emb.fit_probe(LABELS, target="land_cover", method="centroid", cv=0)
    with pytest.raises(EmbeddingError, match="'alphaearth' only; this probe was fitted on 'tessera'"):
        probe.to_earth_engine()
    plain = gx.fit_probe(np.eye(4, dtype="f4"), np.array([1, 1, 2, 2]), method="centroid", cv=0)
    with pytest.raises(EmbeddingError, match="fitted on plain vectors"):
        plain.to_earth_engine()

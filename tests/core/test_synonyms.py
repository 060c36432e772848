"""Names that others use, and near misses, are answered with ours."""

import copy
import pickle
import re
from dataclasses import fields

import numpy as np
import pytest
import xarray as xr

import geoemb_xr as gx
from geoemb_xr import PCA, KMeans, Probe
from geoemb_xr.accessor import EmbAccessor, EmbDatasetAccessor
from geoemb_xr.core import synonyms
from geoemb_xr.core.errors import EmbeddingError


@pytest.fixture(scope="module")
def codes():
    return gx.testing.synthetic("alphaearth", shape=(8, 8), years=[2018, 2020])


@pytest.mark.parametrize(
    ("wrong", "ours"),
    [
        ("clip", "crop"),
        ("mask", "crop"),
        ("kmeans", "fit_clusters"),
        ("to_geotiff", "to_cog"),
        ("plto", "plot"),
    ],
)
def test_a_wrong_name_is_answered_with_ours(codes, wrong, ours):
    for thing in (codes.emb, gx):
        with pytest.raises(AttributeError, match=f"has no attribute '{wrong}'.*'{ours}'"):
            getattr(thing, wrong)
        assert not hasattr(thing, wrong)


def test_what_sounds_like_nothing_of_ours_is_plainly_not_there(codes):
    with pytest.raises(AttributeError, match=r"^\.emb has no attribute 'zzz'$"):
        codes.emb.zzz  # noqa: B018 - the access is the test


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ("isel", "it is a method of the array itself: array.isel"),
        ("evaluate", "it is a function: geoemb_xr.evaluate"),
        ("quantize", "it is a function: geoemb_xr.encode"),
        ("sampleRegions", "here it is called 'sample'"),
        ("buffer", r"areas\.buffer\(100\)"),
        ("total_bounds", "here it is called 'bounds'"),
    ],
)
def test_what_others_have_is_said_where_it_is(codes, wrong, says):
    with pytest.raises(AttributeError, match=says):
        getattr(codes.emb, wrong)
    if wrong == "isel":
        with pytest.raises(AttributeError, match=r"method of the Dataset itself: dataset\.isel"):
            codes.to_dataset(name="a").emb.isel  # noqa: B018


def test_every_synonym_leads_somewhere_and_hides_nothing():
    models = {name for each in (PCA, KMeans, Probe) for name in (*dir(each), *(f.name for f in fields(each)))}
    ours = {*gx.__all__, *dir(EmbAccessor), *models, *(each.name for each in fields(gx.Product))}
    named = [names if isinstance(names, tuple) else (names,) for names in synonyms.NAMES.values()]
    assert set().union(*named) <= ours
    assert set(synonyms.OF_PACKAGE) <= set(gx.__all__) - set(dir(EmbAccessor)) | {"product"}
    for known in (synonyms.NAMES, synonyms.HINTS):
        assert not set(known) & {*gx.__all__, *dir(EmbAccessor)}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda da: gx.open("alphaearth", year=2024),
            r"open\(\) has no keyword 'year'; here it is called 'time'",
        ),
        (lambda da: gx.open("alphaearth", geometry=1), "here it is called 'geopolygon'"),
        (lambda da: da.emb.crop(geometry=1), "here it is called 'area'"),
        (lambda da: da.emb.reproject("EPSG:3035", res=10), "here it is called 'resolution'"),
        (lambda da: da.emb.reproject("EPSG:3035", resolutoin=10), "Did you mean 'resolution'"),
        (lambda da: da.emb.fit_probe(None, random_state=1), "here it is called 'seed'"),
        (lambda da: da.emb.reproject(crs="EPSG:3035"), "here it is called 'target'"),
        (lambda da: da.emb.crop(bbox=(11, 47, 12, 48)), "here it is called 'area'"),
        (lambda da: da.to_dataset(name="a").emb.crop(geometry=1), "here it is called 'area'"),
        (
            lambda da: da.to_dataset(name="a").emb.to_zarr("x.zarr", overwrite=True),
            "here it is called 'mode'",
        ),
        (
            lambda da: da.emb.fit_pca(2).transform(da, arry=1),
            r"transform\(\) has no keyword 'arry'. Did you mean",
        ),
        (
            lambda da: da.emb.fit_pca(2).save("x.npz", file=1),
            "'file'; here it is called 'path'",
        ),
        (lambda da: gx.Product("mine", dim=3), r"Product\(\) has no keyword 'dim'; here it is called 'dims'"),
        (lambda da: gx.normalize(da, zzz=1), "it has array"),
        (
            lambda da: da.emb.pca(3),
            r"pca takes a fitted PCA, got 3; fit one first: pca = array.emb.fit_pca\(3\)",
        ),
    ],
)
def test_a_wrong_keyword_is_answered_with_ours(codes, call, message):
    with pytest.raises(TypeError, match=message):
        call(codes)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda da: gx.fit_probe(da, None, cv=None), "leave it out for 5, or say cv=0 for no validation"),
        (lambda da: da.emb.fit_probe(None, seed=None), "fit_probe() takes no None for 'seed'; leave it out for 0"),
        (lambda da: da.emb.fit_pca(None), "fit_pca() takes no None for 'n_components'; leave it out for 3"),
        (lambda da: da.emb.fit_clusters(None), "fit_clusters() needs 'n_clusters'; got None"),
        (lambda da: da.to_dataset(name="a").emb.to_zarr("x.zarr", chunks=None), "'chunks'; leave it out for 256"),
        (lambda da: da.emb.fit_clusters("3"), "takes a whole number for 'n_clusters'; got '3'"),
        (lambda da: gx.search(da, (11.37, 47.25), 2.5), "search() takes a whole number for 'k'; got 2.5"),
        (lambda da: da.emb.fit_pca(seed=np.random.RandomState(0)), "for 'seed'; got RandomState"),
        (lambda da: da.emb.to_zarr("x.zarr", chunks={"x": 8}), "for 'chunks'; got {'x': 8}"),
        (lambda da: gx.align(da, None), "align() needs 'arrays'; got None"),
        (lambda da: gx.normalize(None), "normalize() needs 'array'; got None"),
        (lambda da: da.emb.fit_pca(2).transform(None), "transform() needs 'array'; got None"),
    ],
)  # fmt: skip
def test_none_and_numbers_that_are_not_whole_are_refused(codes, call, says):
    with pytest.raises(EmbeddingError, match=re.escape(says)):
        call(codes)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (
            lambda da: gx.fit_probe(da, None, None, None),
            "fit_probe() takes array and labels without a name; ",
        ),
        (lambda da: da.emb.explain("probe", "labels"), "meant: labels=, target="),
        (lambda da: da.emb.change(2018, 2020, "cosine"), "change() takes a and b without a name; say which"),
    ],
)
def test_too_many_arguments_are_answered_with_the_names_of_the_others(codes, call, says):
    with pytest.raises(TypeError, match=re.escape(says)):
        call(codes)


def test_none_is_taken_where_a_default_is_none_or_a_switch(codes):
    assert codes.emb.change(2018, None).sizes["y"] == 8  # the other year
    assert gx.open("alphaearth", gx.example("alphaearth"), zones="merge", bbox=None, decode=None).emb.encoded
    assert len(gx.search(codes.emb.year(2018), (11.37, 47.25), np.int8(2))) == 2
    assert codes.emb.crop(codes.emb.bounds, crs=codes.emb.crs, mask=None).identical(codes)


def test_attributes_of_scikit_learn_are_answered_with_ours(codes):
    pca, clusters = codes.emb.fit_pca(3), codes.emb.fit_clusters(2)
    with pytest.raises(
        AttributeError, match="PCA has no attribute 'components_'; here it is called 'loadings'"
    ):
        pca.components_  # noqa: B018
    with pytest.raises(AttributeError, match="no attribute 'cluster_centers_'; here it is called 'centres'"):
        clusters.cluster_centers_  # noqa: B018
    with pytest.raises(AttributeError, match=r"predict_proba': predict\(array, output='proba'\)"):
        clusters.predict_proba  # noqa: B018
    with pytest.raises(
        AttributeError, match="Product has no attribute 'license'; here it is called 'licence'"
    ):
        gx.product("alphaearth").license  # noqa: B018
    assert pickle.loads(pickle.dumps(pca)) == copy.deepcopy(pca) == pca


@pytest.mark.parametrize("name", sorted(set(gx.__all__)))
def test_public_functions_pickle_by_their_public_name(name):
    value = getattr(gx, name)
    if callable(value):
        assert pickle.loads(pickle.dumps(value)) is value


def test_functions_of_one_array_say_so_of_a_dataset(codes):
    dataset = xr.Dataset({"embedding": codes})
    with pytest.raises(EmbeddingError, match=r"crop takes one array.*ds\.emb\.crop\(…\) takes every"):
        gx.crop(dataset, (11, 47, 12, 48))
    with pytest.raises(EmbeddingError, match=r"one array.*ds\['embedding'\]\.emb\.fit_pca\(…\) takes one"):
        gx.fit_pca(dataset)
    with pytest.raises(AttributeError, match=r"'fit_pca' is of one array: ds\['embedding'\]\.emb\.fit_pca"):
        dataset.emb.fit_pca  # noqa: B018
    public = {name for name in vars(EmbDatasetAccessor) if not name.startswith("_")}
    assert public == set(synonyms.OF_DATASETS)
    assert np.isfinite(codes.values).any()


def test_options_of_a_method_keep_the_names_of_its_package():
    @synonyms.answering
    def fit(array, *, method="knn", seed=0, **options):
        return options

    assert fit(1, n_neighbors=3) == {"n_neighbors": 3}  # no keyword of ours is meant by it
    with pytest.raises(TypeError, match="here it is called 'seed'"):
        fit(1, random_state=3)


def test_plain_vectors_in_place_of_an_array_are_told_of(codes):
    vectors = np.zeros((4, 64), np.float32)
    for call in (gx.normalize, gx.fit_pca, lambda given: gx.predict(given, None)):
        with pytest.raises(EmbeddingError, match=r"takes an xarray\.DataArray; got ndarray\. gx\.wrap makes"):
            call(vectors)
    pca = codes.emb.year(2018).emb.fit_pca(2)
    with pytest.raises(EmbeddingError, match=r"call model\.apply\(vectors, 'component'\)"):
        pca.predict(vectors)

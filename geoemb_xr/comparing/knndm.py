"""Folds whose test labels are as far from the training labels as a map's pixels are from all labels.

Linnenbrink et al. (2024), doi:10.5194/gmd-17-5897-2024: k-fold nearest neighbour distance matching. Of several ways
to cluster the labels and to merge the clusters into folds the one is taken whose distances from test to training
labels match best those from the area to be mapped to the labels, by the Wasserstein distance W between the two.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

#: Numbers of clusters that are tried.
_CANDIDATES = 40
#: No fold holds a larger share of the labels.
_LARGEST_FOLD = 0.5
#: More places than this are clustered by k-means: average linkage needs all distances between pairs.
_MOST_LINKED = 3000


@dataclass(frozen=True)
class Matched:
    """Folds, and how well they match.

    Parameters
    ----------
    folds : ndarray of int (n,)
        Fold of each label.
    w : float
        Wasserstein distance, in metres, between the distances of the folds and those of the area.
    w_random : float
        The same for folds drawn at random.
    random : bool
        Whether the labels are spread over the area as a random sample is, so that folds at random are taken.
    """

    folds: np.ndarray
    w: float
    w_random: float
    random: bool


def nearest_distances(places: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Distance from each place to the nearest of the others (n,)."""
    from scipy.spatial import cKDTree

    return np.asarray(cKDTree(others).query(places)[0])


def fold_distances(places: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Distance from each place to the nearest one of another fold (n,)."""
    found = np.empty(len(places))
    for fold in np.unique(folds):
        own = folds == fold
        found[own] = nearest_distances(places[own], places[~own])
    return found


def matched_folds(places: np.ndarray, groups: np.ndarray, area: np.ndarray, k: int, seed: int) -> Matched:
    """Match the distances between folds to those of an area.

    Parameters
    ----------
    places : ndarray (n, d)
        Places of labels, in metres.
    groups : ndarray of int (n,)
        No fold parts a group.
    area : ndarray (m, d)
        Places all over the area to be mapped.
    k : int
        Number of folds.
    seed : int
        Seed of the folds at random.
    """
    from scipy import stats

    group = np.unique(groups, return_inverse=True)[1]
    counts = np.bincount(group)
    centres = np.column_stack([np.bincount(group, column) / counts for column in places.T])
    k = min(k, len(centres))
    wanted = nearest_distances(area, places)

    def w_of(folds: np.ndarray) -> float:
        return float(stats.wasserstein_distance(fold_distances(places, folds[group]), wanted))

    among = fold_distances(places, group)
    dealt = np.random.default_rng(seed).permutation(len(centres)) % k
    w_random = w_of(dealt)
    if stats.ks_2samp(among, wanted, alternative="greater", method="asymp").pvalue >= 0.05:
        return Matched(dealt[group], w_random, w_random, True)
    best, least = dealt, w_random
    for clusters in _clusterings(centres, k, seed):
        folds = _merged(clusters, centres, counts, k)
        if np.bincount(folds, counts).max() > _LARGEST_FOLD * counts.sum() or len(np.unique(folds)) < 2:
            continue
        w = w_of(folds)
        if w < least:
            best, least = folds, w
    return Matched(np.unique(best, return_inverse=True)[1][group], least, w_random, False)


def _clusterings(centres: np.ndarray, k: int, seed: int) -> list[np.ndarray]:
    """The cluster of each place, for k to all clusters."""
    from scipy.cluster.hierarchy import fcluster, linkage

    n = len(centres)
    numbers = np.unique(np.geomspace(k, n, _CANDIDATES).astype(int))
    if n > _MOST_LINKED:
        from sklearn.cluster import KMeans

        return [KMeans(int(q), n_init=1, random_state=seed).fit_predict(centres) for q in numbers if q < n]
    tree = linkage(centres, "average")
    return [fcluster(tree, int(q), "maxclust") - 1 for q in numbers]


def _merged(clusters: np.ndarray, centres: np.ndarray, counts: np.ndarray, k: int) -> np.ndarray:
    """Folds of whole clusters: a large one is a fold, the others are dealt in their order along the main axis."""
    sizes = np.bincount(clusters, counts)
    middle = np.column_stack([np.bincount(clusters, c * counts) for c in centres.T]) / sizes[:, None]
    order = np.argsort(middle @ np.linalg.svd(centres - centres.mean(axis=0), full_matrices=False)[2][0])
    large = [c for c in order if sizes[c] >= counts.sum() / k][: k - 1]
    fold = np.empty(len(sizes), np.int64)
    fold[large] = np.arange(len(large))
    rest = [c for c in order if c not in set(large)]
    fold[rest] = len(large) + np.arange(len(rest)) % (k - len(large))
    return np.asarray(fold[clusters])

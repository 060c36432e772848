"""Where things are: grids, warping, points, polygons, patches."""

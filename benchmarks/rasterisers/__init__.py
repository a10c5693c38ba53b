"""The rasteriser benchmark: scenes, candidates, measurement and table, used by ``benchmarks/raster.py``."""

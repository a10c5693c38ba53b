"""Many portraits on many workers: prompt files, executors, the driver, the manifest and the gallery.

Nothing in ``ap3d`` imports this package. Ray and torch are imported only where work starts.
"""

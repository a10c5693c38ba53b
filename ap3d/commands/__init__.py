"""One file a command of the ``ap3d`` program."""

"""Entry points: thin commands over ``cluster`` and ``ap3d``, run from the checkout with ``python -m jobs.NAME``."""

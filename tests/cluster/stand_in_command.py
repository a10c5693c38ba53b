"""``python -m stand_in_command JSON``: one run with the stand-in pipeline, for tests that need a process of its own."""

import json
import sys

from cluster.command import run_command
from cluster.run import GenerateOptions, generate
from cluster.sizing import WorkerOptions


def main() -> int:
    """Run ``generate`` with the options of the first argument; say which heavy packages were imported."""
    options = json.loads(sys.argv[1])
    sizes = WorkerOptions(workers=options.pop("workers", None), threads_per_worker=1)
    status = generate(GenerateOptions(sizes=sizes, **{"pipeline": "stand_in:load", "preset": "smoke", **options}))
    print("heavy:", sorted({"torch", "ray", "diffusers"} & set(sys.modules)))
    return status


if __name__ == "__main__":
    run_command(main)

"""``python -m tests.cluster.chaos_driver PROMPTS ROOT WORKERS|any``: the real driver on a simulated cluster."""

import os
import sys

from cluster.command import run_command
from cluster.run import GenerateOptions, generate
from cluster.sizing import WorkerOptions


def main() -> int:
    """Join the cluster without sending code along, which its nodes have, and generate."""
    import ray

    prompts, root, workers = sys.argv[1:]
    ray.init(address=os.environ["RAY_ADDRESS"], log_to_driver=False, logging_level="ERROR")
    sizes = WorkerOptions(workers=None if workers == "any" else int(workers), gpus_per_worker=1.0)
    options = GenerateOptions(
        out=root, prompts=prompts, preset="smoke", executor="ray", sizes=sizes,
        pipeline="tests.cluster.chaos_pipeline:load", node_wait_s=60.0,
    )  # fmt: skip
    return generate(options)


if __name__ == "__main__":
    run_command(main)

"""Make an avatar of each prompt in a file, on this machine or on a Ray cluster.

Run it again with the same arguments to continue: finished portraits are skipped, failed ones are tried again. At least
once, idempotent, committed last: workers, machines and this command may be killed at any moment.
"""

import argparse
import os

from cluster.command import OneLineParser, run_command

STATUS = "exit status: 0 all done, 1 some portraits failed, 2 bad input, 3 the run could not go on, 130/143 interrupted"
PROMPTS = (
    ".txt (a prompt a line), .csv, .jsonl or .parquet with prompt and, if wanted, id, seed, abstract_prompt, portrait;"
    " a path or any fsspec URL"
)
EXECUTOR = "this process, or Ray: the cluster in RAY_ADDRESS, else this machine (default: ray where RAY_ADDRESS is set)"
TIMEOUT = "longest time of one try at one portrait (default: 6 h)"
STAGE_TIMEOUT = "longest time of one stage of a try (default: none)"
RECYCLE = "replace a worker by a fresh one after so many portraits (default: only when its memory grows)"
SPECULATE = "let idle workers copy the slowest portraits; whichever is first counts"
NODE_WAIT = "wait for a machine that can hold a worker (default: 8, or 1200 where `ray up` scales)"


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and run; returns the exit status."""
    options = vars(_parser().parse_args(arguments))
    from ap3d.config import parse_overrides
    from cluster.run import GenerateOptions, generate
    from cluster.sizing import WorkerOptions

    sizes = WorkerOptions(**{k: options.pop(k) for k in ("workers", "gpus_per_worker", "threads_per_worker")})
    overrides = parse_overrides(options.pop("set"))
    return generate(GenerateOptions(sizes=sizes, overrides=overrides, **options))


def _default_executor() -> str:
    """A job that was submitted to a cluster uses it."""
    return "ray" if os.environ.get("RAY_ADDRESS") else "inline"


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(prog="python -m jobs.generate", description=__doc__, epilog=STATUS)
    add = parser.add_argument
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--prompts", metavar="FILE", help=PROMPTS)
    source.add_argument("--portraits", metavar="DIR", help="folder or URL of Portrait3D results ID.pth with ID.txt")
    add("--out", metavar="ROOT", required=True, help="the dataset's folder or URL (s3://, gs://, ...)")
    add("--preset", default="builtin", help="smoke, builtin, draft or paper (default: %(default)s)")
    add("--config", dest="config_file", metavar="FILE", help="YAML with the fields that differ from the preset")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="one such field, e.g. refine.rounds=1")
    add("--seed", type=int, default=0, help="for prompts without their own (default: %(default)s)")
    add("--keep-work", action="store_true", help="keep the outputs of all stages")
    add("--dry-run", action="store_true", help="say what would be done, write nothing")
    add = parser.add_argument_group("workers").add_argument
    add("--executor", choices=("inline", "ray"), default=_default_executor(), help=EXECUTOR)
    add("--workers", type=int, metavar="N", help="Ray actors (default: one a GPU, or one a core)")
    add("--gpus-per-worker", type=float, metavar="F", help="a fraction shares a GPU (default: 1 if there is any)")
    add("--threads-per-worker", type=int, metavar="N", help="CPU threads of a worker (default: 1, on a GPU up to 4)")
    add("--timeout", dest="timeout_s", type=float, default=6 * 3600.0, metavar="SECONDS", help=TIMEOUT)
    add("--stage-timeout", dest="stage_timeout_s", type=float, metavar="SECONDS", help=STAGE_TIMEOUT)
    add("--recycle-after", type=int, default=0, metavar="N", help=RECYCLE)
    add("--speculate", action="store_true", help=SPECULATE)
    add("--node-wait", dest="node_wait_s", type=float, metavar="SECONDS", help=NODE_WAIT)
    add("--takeover", action="store_true", help="write although another driver seems to be at it")
    return parser


if __name__ == "__main__":
    run_command(main)

"""Show what a dataset holds and how its run is doing, from any machine that sees the storage."""

import json

from cluster.command import OneLineParser, run_command


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and print; returns the exit status."""
    parser = OneLineParser(prog="python -m jobs.status", description=__doc__)
    parser.add_argument("root", help="the dataset's folder or URL")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    from ap3d.storage import Store
    from cluster.status import print_status, read_status

    status = read_status(Store(options.root))
    if options.json:
        print(json.dumps(status, indent=1))
        return 0
    from rich.console import Console

    print_status(Console(), status)
    return 0


if __name__ == "__main__":
    run_command(main)

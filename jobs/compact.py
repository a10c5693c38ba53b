"""Merge a dataset's manifest into few files, or make it again from the records beside the portraits; and remove what
lost workers left."""

from cluster.command import OneLineParser, run_command


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and compact; returns the exit status."""
    parser = OneLineParser(prog="python -m jobs.compact", description=__doc__)
    parser.add_argument("root", help="the dataset's folder or URL")
    parser.add_argument("--rebuild", action="store_true", help="read every record (always done when no part is there)")
    parser.add_argument("--takeover", action="store_true", help="write although a driver seems to be at it")
    parser.add_argument(
        "--no-sweep", action="store_true", help="do not look into every folder for what lost workers left"
    )
    options = parser.parse_args(arguments)
    from cluster.maintenance import compact

    sweep = not options.no_sweep
    print(compact(options.root, rebuild=options.rebuild, takeover=options.takeover, sweep=sweep))
    return 0


if __name__ == "__main__":
    run_command(main)

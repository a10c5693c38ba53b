"""Write a dataset's gallery (index.html) again from its manifest."""

from cluster.command import OneLineParser, run_command


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and write the page; returns the exit status."""
    parser = OneLineParser(prog="python -m jobs.gallery", description=__doc__)
    parser.add_argument("root", help="the dataset's folder or URL")
    options = parser.parse_args(arguments)
    from ap3d.errors import InputError
    from ap3d.storage import Store
    from cluster import gallery, manifest, schema

    store = Store(options.root)
    manifest.check_schema(store)
    if not manifest.has_parts(store):
        raise InputError(f"{options.root!r} holds no manifest; make one with jobs.generate or jobs.compact --rebuild")
    gallery.write(store, schema.with_latest(manifest.read_all(store)))
    print(store.path(gallery.PAGE))
    return 0


if __name__ == "__main__":
    run_command(main)

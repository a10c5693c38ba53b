"""Work on a dataset that no run is writing: compaction, and the manifest made again from records."""

from ap3d.errors import InputError
from ap3d.storage import Store
from cluster import gallery, manifest, orphans, records
from cluster.lease import Lease


def compact(root: str, *, rebuild: bool = False, takeover: bool = False, sweep: bool = True) -> str:
    """Merge the parts under the lease, after adding rows from records when asked or when no part is there, and remove
    what lost workers left unless ``sweep`` is off, since that looks into every folder.

    Returns:
        One line that says what was done.

    Raises:
        InputError: there is nothing to compact.
        RunError: a driver is writing.
    """
    store = Store(root)
    manifest.check_schema(store)
    rebuild = rebuild or not manifest.has_parts(store)
    recorded = records.read_records(store) if rebuild else []
    if not recorded and not manifest.has_parts(store):
        raise InputError(f"{root!r} holds neither a manifest nor records of portraits")
    lease = Lease.acquire(store, takeover=takeover)
    try:
        writer = manifest.ManifestWriter(store, lease.epoch)
        writer.add(recorded)
        writer.flush()
        before, after, rows = manifest.compact(store)
        table = writer.write_table(rows)
        swept = orphans.sweep(store, table) if sweep else 0
        gallery.write(store, table)
    finally:
        lease.release()
    found = f"{len(recorded)} records read, " if rebuild else ""
    removed = f", {swept} files of lost workers removed" if swept else ""
    return f"{found}{before} files became {after}, {len(table)} rows{removed}"

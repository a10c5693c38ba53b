"""``python -m tests.cluster.growth FOLDER``: a run that begins on one machine while a second one appears.

Exit status 0 when both worked at the same time and every portrait was made.
"""

import sys
import time
from pathlib import Path

import pyarrow.parquet as pq

from tests.cluster.chaos_cluster import SimulatedCluster, driver_process
from tests.cluster.chaos_events import Events
from tests.cluster.chaos_pipeline import ChaosSettings

PORTRAITS, LIMIT_SECONDS = 60, 180.0


def main() -> int:
    """Start with a machine of one GPU and no word about how many workers; a second machine comes after a while."""
    folder = Path(sys.argv[1])
    (folder / "prompts.txt").write_text("".join(f"man number {i}\n" for i in range(PORTRAITS)))
    events = Events(folder / "events")
    settings = ChaosSettings(str(events.path), stage_seconds=0.3, storage_errors=0.0)
    cluster = SimulatedCluster(1, 1, settings.environment())
    most, until = 0, time.monotonic() + LIMIT_SECONDS
    try:
        arguments = [str(folder / "prompts.txt"), str(folder / "root"), "any"]
        with driver_process(cluster.address, arguments, folder / "driver.log") as driver:
            while driver.poll() is None and time.monotonic() < until:
                if events.done and len(cluster.nodes()) == 1:
                    cluster.add_node()
                events.read()
                most = max(most, len(events.open))
                time.sleep(0.05)
            status = driver.poll()
    finally:
        cluster.close()
    print((folder / "driver.log").read_text()[-2000:], f"status {status}, {most} at the same time", sep="\n")
    done = pq.read_table(folder / "root" / "avatars.parquet")["status"].to_pylist() if status == 0 else []
    return 0 if status == 0 and most == 2 and done == ["done"] * PORTRAITS else 1


if __name__ == "__main__":
    sys.exit(main())

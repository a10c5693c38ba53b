"""The cluster files are what Ray's launcher accepts, and hold what it does not check."""

from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "cluster" / "examples"
MACHINE_KEY = {"aws": "InstanceType", "gcp": "machineType"}


def validated(config: dict[str, Any]) -> dict[str, Any]:
    # Ray has no public check of a cluster file; these two functions are what `ray up` calls first.
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared: dict[str, Any] = prepare_config(config)
    validate_config(prepared)
    return prepared


@pytest.mark.parametrize("path", [ROOT / "ray_config.yaml", *sorted(EXAMPLES.glob("*.yaml"))], ids=lambda p: p.name)
def test_cluster_files_are_valid(path: Path) -> None:
    config = yaml.safe_load(path.read_text())
    validated(yaml.safe_load(path.read_text()))
    kind = config["provider"]["type"]
    for name, node in config.get("available_node_types", {}).items():
        assert isinstance(node["node_config"].get(MACHINE_KEY[kind]), str), name
        assert set(node["node_config"]) <= {
            "InstanceType", "InstanceMarketOptions", "BlockDeviceMappings", "IamInstanceProfile",
            "machineType", "metadata", "scheduling", "disks",
        }, name  # fmt: skip


def test_the_head_takes_no_work_and_gpu_workers_are_spot_machines_that_may_be_none() -> None:
    config = yaml.safe_load((ROOT / "ray_config.yaml").read_text())
    types = config["available_node_types"]
    assert types[config["head_node_type"]]["resources"]["CPU"] == 0
    workers = {name: node for name, node in types.items() if name != config["head_node_type"]}
    for node in workers.values():
        assert node["min_workers"] == 0 and node["resources"]["GPU"] >= 1
        assert node["node_config"]["InstanceMarketOptions"]["MarketType"] == "spot"
    assert config["max_workers"] >= max(node["max_workers"] for node in workers.values())


@pytest.mark.parametrize("change", [{"max_worker": 3}, {"max_workers": "eight"}, {"head_node_type": "nobody"}])
def test_a_wrong_cluster_file_is_noticed(change: dict[str, Any]) -> None:
    config = {**yaml.safe_load((ROOT / "ray_config.yaml").read_text()), **change}
    with pytest.raises(Exception):  # noqa: B017 - the launcher raises several kinds
        validated(config)


def test_ray_of_the_image_is_the_one_that_is_pinned() -> None:
    pinned = [
        line.split("==")[1] for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith("ray==")
    ]
    config = yaml.safe_load((ROOT / "ray_config.yaml").read_text())
    assert pinned and f"ray:{pinned[0].strip()}-" in config["docker"]["image"]

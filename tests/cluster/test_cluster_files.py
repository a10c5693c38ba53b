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


KUBERAY = EXAMPLES / "kuberay-rayjob.yaml"
LAUNCHED = [ROOT / "ray_config.yaml", *(path for path in sorted(EXAMPLES.glob("*.yaml")) if path != KUBERAY)]


@pytest.mark.parametrize("path", LAUNCHED, ids=lambda p: p.name)
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


@pytest.mark.parametrize("path", LAUNCHED, ids=lambda p: p.name)
def test_authentication_is_on_and_statistics_are_off_on_every_machine(path: Path) -> None:
    config = yaml.safe_load(path.read_text())
    assert any(target.endswith("/.ray/auth_token") for target in config["file_mounts"])
    for part in ("head_start_ray_commands", "worker_start_ray_commands"):
        (start,) = (line for line in config[part] if "ray start" in line)
        assert "RAY_AUTH_MODE=token" in start and "RAY_USAGE_STATS_ENABLED=0" in start
    assert "--dashboard-host=127.0.0.1" in " ".join(config["head_start_ray_commands"])


def test_the_kubernetes_job_is_what_rays_autoscaler_reads() -> None:
    from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

    job = yaml.safe_load(KUBERAY.read_text())
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    cluster = job["spec"]["rayClusterSpec"]
    derived = _derive_autoscaling_config_from_ray_cr({"metadata": job["metadata"], "spec": cluster})
    types = derived["available_node_types"]
    assert types["headgroup"]["resources"]["CPU"] == 0
    worker = types["gpu-spot"]
    assert (worker["min_workers"], worker["max_workers"], worker["resources"]["GPU"]) == (0, 8, 1)
    assert cluster["authOptions"] == {"mode": "token"} and cluster["enableInTreeAutoscaling"]
    arguments = job["spec"]["entrypoint"].split()
    assert arguments[:3] == ["python", "-m", "jobs.generate"]
    from jobs.generate import _parser

    assert _parser().parse_args(arguments[3:]).preset == "paper"
    assert yaml.safe_load(job["spec"]["runtimeEnvYAML"])["env_vars"]["RAY_JOB_STOP_WAIT_TIME_S"] == "60"


def test_the_image_has_the_pinned_ray_and_no_statistics() -> None:
    text = (ROOT / "Dockerfile").read_text()
    config = yaml.safe_load((ROOT / "ray_config.yaml").read_text())
    assert f"ARG BASE={config['docker']['image']}" in text and "RAY_USAGE_STATS_ENABLED=0" in text
    version = config["docker"]["image"].split(":")[1].split("-")[0]
    assert yaml.safe_load(KUBERAY.read_text())["spec"]["rayClusterSpec"]["rayVersion"] == version
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert ".git" in ignored and "ap3d" not in ignored


def test_ray_of_the_image_is_the_one_that_is_pinned() -> None:
    pinned = [
        line.split("==")[1] for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith("ray==")
    ]
    config = yaml.safe_load((ROOT / "ray_config.yaml").read_text())
    assert pinned and f"ray:{pinned[0].strip()}-" in config["docker"]["image"]

"""``ap3d inspect``: what a bundle holds and what it cost."""

import argparse
import json
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from ap3d.bundle_files import open_files
from ap3d.errors import DataFileError
from ap3d.splats.facts import check_facts

FIELDS = (
    "face_id", "prompt", "completed_prompt", "abstract_prompt", "unknown_words", "seed", "preset", "config_hash", "rig",
    "expression_basis", "imported", "rotation_order", "sh_degree", "triangles", "groups", "licences",
)  # fmt: skip


def inspect(options: argparse.Namespace) -> int:
    """Print a bundle's description and files."""
    store = open_files(options.bundle)
    if not store.exists("avatar.json"):
        raise DataFileError(f"{options.bundle} is not an avatar bundle: it holds no avatar.json")
    facts = store.read_json("avatar.json")
    check_facts(facts, options.bundle)
    from ap3d.splats.bundle import load_bundle

    load_bundle(options.bundle, options.rig)  # refuses what is damaged
    if options.json:
        print(json.dumps(facts, indent=1, sort_keys=True))
        return 0
    table = Table(show_header=False, box=None)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name in FIELDS:
        table.add_row(name, _shown(facts.get(name)))
    for name, value in sorted(facts.get("metrics", {}).items()):
        table.add_row(f"metric {name}", f"{value:.4g}" if isinstance(value, int | float) else str(value))
    for phase in facts.get("cost", []):
        table.add_row(f"cost {phase.get('phase')}", cost_line(phase))
    for name in store.list(""):
        if not name.startswith("."):
            table.add_row(f"file {name}", f"{len(store.read_bytes(name)):,} bytes")
    Console(highlight=False, markup=False).print(table)
    return 0


def cost_line(phase: Mapping[str, Any]) -> str:
    """A phase's time, evaluations, operations, utilisation and memory in words; what is absent is left out."""
    shown = (
        ("seconds", 1.0, "{:.1f} s"), ("unet_evaluations", 1.0, "{:,.0f} UNet"),
        ("controlnet_evaluations", 1.0, "{:,.0f} ControlNet"), ("flops", 1e-12, "{:,.3g} TFLOP"),
        ("utilisation", 100.0, "{:.0f} % of the peak"), ("peak_memory_mb", 1.0, "{:,.0f} MiB"),
        ("peak_gpu_memory_mb", 1.0, "{:,.0f} MiB GPU"),
    )  # fmt: skip
    values = [(phase.get(name), factor, text) for name, factor, text in shown]
    return ", ".join(t.format(v * f) for v, f, t in values if isinstance(v, int | float) and v)


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {v}" for k, v in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)

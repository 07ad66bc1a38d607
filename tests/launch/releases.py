"""Small releases written by hand, whose manifests say what a test wants; and both manifests of a real one."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def manifest(
    samples: Sequence[dict[str, Any]], task: str, kind: str, size: Sequence[int] = (16, 16), **more: Any
) -> dict[str, Any]:
    """A manifest of format 1 whose ``samples`` say only what matters: the rest, and the totals, are filled in."""
    filled = [
        {"target": "mask", "protected": True, "max_change": 2, "changed": 1.0, "source_size": [16, 16]}
        | {"source_mode": "L"}
        | sample
        for sample in samples
    ]
    held_out = list(more.pop("held_out", ()))
    protected = sum(sample["protected"] for sample in filled)
    counts = {"samples": len(filled), "protected": protected, "unprotected": len(filled) - protected, "dropped": 0}
    return {
        "format": 1,
        "method": "umed",
        "mode": None,
        "budget": {"levels": 4, "changed": None},
        "data": {"name": "discs", "kind": kind, "task": task, "channels": 1, "size": list(size), "classes": None},
        "totals": {**counts, "held_out": len(held_out), "psnr": 42.1, "ssim": 0.99},
        "versions": {"python": "3.12"},
        "samples": filled,
        "dropped": [],
        "held_out": held_out,
        **more,
    }


def both_manifests(out: Path) -> dict[str, Any]:
    """All that the public and the private manifest of the release ``out`` say, together as format 1 had it."""
    public = json.loads((out / "manifest.json").read_text())
    (path,) = out.with_name(f".{out.name}.run").glob("*/private.json")
    private = json.loads(path.read_text())
    by_id = {sample["id"]: sample for sample in private["samples"]}
    samples = [{**sample, **by_id[sample["id"]]} for sample in public["samples"]]
    return {**public, **private, "data": {**public["data"], **private["data"]}, "samples": samples}


def write_manifest(folder: Path, values: Any) -> None:
    (folder / "manifest.json").write_text(json.dumps(values))

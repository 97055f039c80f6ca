"""The policy that the tests of client libraries write."""

from __future__ import annotations

from typing import Any


def policy(name: str, order: int = 100, **metadata: Any) -> dict[str, Any]:
    """A firewall policy of the cloud `central`."""
    return {
        "apiVersion": "roost.edge/v1",
        "kind": "FirewallPolicy",
        "metadata": {"name": name, "namespace": "central", **metadata},
        "spec": {
            "networks": ["oam"],
            "order": order,
            "rules": [{"action": "allow", "protocol": "tcp", "ports": ["22"]}],
        },
    }

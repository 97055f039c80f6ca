"""POST alarmoutlets/NAME/test: a test message to an outlet's receiver, told step by step."""

from __future__ import annotations

from roost.api.context import ApiContext, Subresource
from roost.cloud.outlets.trying import attempt
from roost.engine.admission import Refused
from roost.link import exchange
from roost.model.codec import Raw
from roost.model.meta import API_VERSION
from roost.model.outlet import AlarmOutlet


def test_subresource() -> dict[tuple[str, str], Subresource]:
    """The handler."""

    async def handle(
        context: ApiContext, caller: exchange.Caller, namespace: str, name: str, body: Raw
    ) -> Raw:
        outlet = await context.store.load(AlarmOutlet, namespace, name)
        if context.vault is None:
            raise Refused("this cloud has no keys for secret values", "its operator sets a file of keys")
        steps = await attempt(context.store, outlet, context.vault, context.clock)
        told = [
            {
                "name": step.name,
                "ok": step.ok,
                "message": step.message,
                "remedy": step.remedy,
                "seconds": step.seconds,
            }
            for step in steps
        ]
        return {
            "apiVersion": API_VERSION,
            "kind": "OutletTest",
            "status": {"ok": all(step.ok for step in steps), "steps": told},
        }

    return {("alarmoutlets", "test"): handle}

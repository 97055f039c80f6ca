"""The platform firewall as an aspect of the host: rules, planning and driver under trial and rollback.

The kernel's table is the world, its state in planning.RulesetState is what is read of it, and a version's
content is the list of commands that make the table. Rules of generation N are kept as commands, not as
intent: what is put back is exactly what was in force, also by a later version of this program.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from roost.host.aspect import AspectError, AspectFacts, AspectOutcome, MemoryFile, TrialRunner, version_of
from roost.host.firewall.driver import FirewallDriver, FirewallError
from roost.host.firewall.planning import RulesetState, parse, plan_ruleset, restorable
from roost.host.firewall.rules import Ruleset, RulesetError, render
from roost.host.trial import Current, Version, Wanted
from roost.model.configuration import HostConfigurationSpec

STATE_FILE = "firewall.json"


class FirewallAspect:
    """Brings HostConfiguration's `firewall` into force on this host."""

    name = "firewall"

    def __init__(
        self, state_directory: Path, driver: FirewallDriver, clock: Callable[[], float] | None = None
    ) -> None:
        file = MemoryFile(state_directory / STATE_FILE)
        self._runner = TrialRunner(self.name, _Table(driver), file, clock)

    async def reconcile(
        self, spec: HostConfigurationSpec, generation: int, facts: AspectFacts
    ) -> AspectOutcome:
        """Towards `spec.firewall`; None, or one without networks, means no table."""
        try:
            wanted = _wanted(spec, generation)
        except RulesetError as error:
            problem = AspectError(f"{error.field}: {error.reason}", error.remedy)
            return await self._runner.hold(facts, generation, problem)
        return await self._runner.reconcile(wanted, facts)

    async def hold(self, facts: AspectFacts) -> AspectOutcome:
        """Put back or keep what was in force, without knowing the intent."""
        return await self._runner.hold(facts, None, None)


def _wanted(spec: HostConfigurationSpec, generation: int) -> Wanted:
    configuration = spec.firewall
    if configuration is None or not configuration.networks:
        return Wanted(version_of(generation, "", None), 0)
    ruleset = render(configuration)
    return Wanted(version_of(generation, ruleset.digest, ruleset.commands), configuration.confirm_seconds)


class _Table:
    """Our table as the target of a TrialRunner."""

    def __init__(self, driver: FirewallDriver) -> None:
        self._driver = driver

    async def read(self) -> Current:
        try:
            objects = await self._driver.read()
        except FirewallError as error:
            raise _problem(error) from error
        state = parse(objects)
        content = None if objects is None else restorable(objects)
        return Current(state.present, state.digest, state.fingerprint, content, state)

    async def check(self, version: Version) -> None:
        try:
            await self._driver.check(version.content)
        except FirewallError as error:
            raise _problem(error) from error

    async def install(self, version: Version) -> None:
        try:
            if version.content is None:
                await self._driver.remove()
            else:
                await self._driver.apply(version.content)
        except FirewallError as error:
            raise _problem(error) from error

    def lines(self, current: Current, version: Version) -> Sequence[str]:
        state = current.detail
        assert isinstance(state, RulesetState)  # noqa: S101
        wanted = None if version.content is None else Ruleset(version.digest, version.content)
        return plan_ruleset(msgspec.structs.replace(state, digest=current.digest), wanted).lines


def _problem(error: FirewallError) -> AspectError:
    return AspectError(f"`{' '.join(error.command)}`: {error.said}", error.remedy)

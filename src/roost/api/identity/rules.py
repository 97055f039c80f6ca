"""What one rule allows, and whether rules cover others. Pure; the words are those of Kubernetes' RBAC.

A rule allows a request when its verbs, API groups, resources and names (or, for paths that are no
resources, its verbs and paths) all have a word for it. Rules only add, so a set of rules allows what any
of them allows.

`uncovered` answers for escalation: what rules would allow that the holder's own rules do not. A rule is
taken apart into single cases (one verb, group, resource and name each), as a holder may cover it with
several of his own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from math import prod

import msgspec

from roost.model.rbac import PolicyRule

ALL = "*"
MOST_CASES = 20_000

EVERYTHING = (
    PolicyRule(verbs=[ALL], api_groups=[ALL], resources=[ALL]),
    PolicyRule(verbs=[ALL], non_resource_urls=[ALL]),
)


class Attributes(msgspec.Struct, frozen=True, kw_only=True):
    """One request: a verb on a resource, or on a path that is none (then `path` is set)."""

    verb: str
    group: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""

    @property
    def combined(self) -> str:
        """`hosts` or `hosts/status`."""
        return f"{self.resource}/{self.subresource}" if self.subresource else self.resource


class TooManyCases(Exception):
    """Rules with so many combinations that they are not compared."""


def allows(rule: PolicyRule, asked: Attributes) -> bool:
    """Whether a rule allows a request, its namespace left aside."""
    if not _has(rule.verbs, asked.verb):
        return False
    if asked.path:
        return any(_path_covers(p, asked.path) for p in rule.non_resource_urls)
    return (
        _has(rule.api_groups, asked.group)
        and _has_resource(rule.resources, asked.resource, asked.subresource)
        and (not rule.resource_names or asked.name in rule.resource_names)
    )


def uncovered(holder: Sequence[PolicyRule], wanted: Iterable[PolicyRule]) -> list[PolicyRule]:
    """The single cases of `wanted` that `holder` does not allow; raises TooManyCases.

    It is asked within a write's transaction: the cases of all rules together are bounded.
    """
    missing: list[PolicyRule] = []
    cases = 0
    for rule in wanted:
        if any(_covers(own, rule) for own in holder):
            continue
        cases += _cases(rule)
        if cases > MOST_CASES:
            raise TooManyCases
        missing += [case for case in apart(rule) if not any(_covers(own, case) for own in holder)]
    return missing


def apart(rule: PolicyRule) -> Iterator[PolicyRule]:
    """The single cases of a rule: one verb on one resource (of one name) or on one path."""
    for verb, path in product(rule.verbs, rule.non_resource_urls):
        yield PolicyRule(verbs=[verb], non_resource_urls=[path])
    for verb, group, resource in product(rule.verbs, rule.api_groups, rule.resources):
        if not rule.resource_names:
            yield PolicyRule(verbs=[verb], api_groups=[group], resources=[resource])
        for name in rule.resource_names:
            yield PolicyRule(verbs=[verb], api_groups=[group], resources=[resource], resource_names=[name])


def in_words(rule: PolicyRule) -> str:
    """A rule as a refusal names it: `{verbs: patch, delete; resources: hosts.roost.edge}`."""
    if rule.non_resource_urls:
        what = "paths: " + ", ".join(rule.non_resource_urls)
    else:
        plurals = [f"{r}.{g}" if g else r for g, r in product(rule.api_groups, rule.resources)]
        what = "resources: " + ", ".join(plurals)
    names = f"; names: {', '.join(rule.resource_names)}" if rule.resource_names else ""
    return f"{{verbs: {', '.join(rule.verbs)}; {what}{names}}}"


def _cases(rule: PolicyRule) -> int:
    resources = prod(map(len, (rule.verbs, rule.api_groups, rule.resources)))
    return resources * max(1, len(rule.resource_names)) + len(rule.verbs) * len(rule.non_resource_urls)


def _covers(own: PolicyRule, rule: PolicyRule) -> bool:
    """Whether one rule allows everything that another does."""
    if not all(_has(own.verbs, v) for v in rule.verbs):
        return False
    if rule.non_resource_urls:
        return all(any(_path_covers(o, p) for o in own.non_resource_urls) for p in rule.non_resource_urls)
    named = bool(rule.resource_names) and set(rule.resource_names) <= set(own.resource_names)
    return (
        bool(rule.resources)
        and all(_has(own.api_groups, g) for g in rule.api_groups)
        and all(_has_resource(own.resources, *_divided(r)) for r in rule.resources)
        and (not own.resource_names or named)
    )


def _divided(resource: str) -> tuple[str, str]:
    plural, _, subresource = resource.partition("/")
    return plural, subresource


def _has(words: Sequence[str], word: str) -> bool:
    return ALL in words or word in words


def _has_resource(words: Sequence[str], resource: str, subresource: str) -> bool:
    if ALL in words:
        return True
    if not subresource:
        return resource in words
    return f"{resource}/{subresource}" in words or f"*/{subresource}" in words


def _path_covers(pattern: str, path: str) -> bool:
    """`*` covers any path, `/a/*` what begins with `/a/`; also patterns cover patterns."""
    return pattern in (ALL, path) or (pattern.endswith("*") and path.startswith(pattern[:-1]))

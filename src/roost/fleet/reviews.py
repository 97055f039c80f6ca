"""The central cloud's decisions on what sites have overridden, carried out.

A review says adopt or revert of one override as it was at one generation. Adopting lays the override's
patch over the exception that there is for this subcloud (a SubcloudException beside the review): `sharing`
makes the copy from both, the link carries it down, and the override ends at the site because nothing differs
any more. No other subcloud is touched. Reverting is the site's to do, when the review arrives there.

A review goes when its override has gone. Until then it says what it waits for; one that speaks of an
override as it no longer is does nothing and says so.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from roost.engine.controller import Key, StoreController
from roost.engine.faults import write_log
from roost.engine.overrides import OVERRIDABLE, Unfit, laid_over, patch_of, speaks_of
from roost.fleet.sharing import exceptions_in, shared_original
from roost.model import patches
from roost.model.cloud import Subcloud
from roost.model.codec import Raw
from roost.model.meta import Metadata
from roost.model.override import (
    LOCAL_OVERRIDE,
    OVERRIDE_REVIEW,
    LocalOverride,
    OverrideReview,
    OverrideReviewStatus,
    SubcloudException,
    SubcloudExceptionSpec,
    override_name,
)
from roost.store.transaction import HERE, Change, Transaction


class ReviewController(StoreController):
    """Carries out reviews. Keys are the subcloud and the name of a review."""

    name = "override-reviews"

    def __init__(self, cloud: str) -> None:
        self._cloud = cloud

    def concerned(self, change: Change) -> Iterable[Key]:
        if change.namespace == self._cloud:
            return
        if change.kind == OVERRIDE_REVIEW.kind and change.origin == HERE:
            if change.type != "DELETED":
                yield (change.namespace, change.name)
        elif change.kind == LOCAL_OVERRIDE.kind and change.origin != HERE:
            yield (change.namespace, "")

    def all_keys(self, tx: Transaction) -> Iterable[Key]:
        return [(s.namespace, s.name) for s in tx.select(OVERRIDE_REVIEW.kind, origin=HERE)]

    def decide(self, tx: Transaction, key: Key) -> float | None:
        namespace, name = key
        if not name:
            for stored in tx.select(OVERRIDE_REVIEW.kind, namespace, origin=HERE):
                self._look(tx, stored.typed(OverrideReview))
            return None
        review = tx.seek(OverrideReview, namespace, name)
        if review is not None:
            self._look(tx, review)
        return None

    def _look(self, tx: Transaction, review: OverrideReview) -> None:
        meta, spec = review.metadata, review.spec
        override = tx.seek(LocalOverride, meta.namespace, spec.override)
        if override is None or override.metadata.uid != spec.uid:
            if meta.deletion_timestamp is None:
                tx.remove(OVERRIDE_REVIEW.kind, meta.namespace, meta.name)
                text = (
                    f"{meta.namespace} no longer has the override {spec.override}: {spec.decision} is done."
                )
                self._tell(tx, review, text)
            return
        status = self._carry_out(tx, review, override)
        if status != review.status:
            tx.report(msgspec.structs.replace(review, status=status))

    def _carry_out(
        self, tx: Transaction, review: OverrideReview, override: LocalOverride
    ) -> OverrideReviewStatus:
        namespace, spec = review.metadata.namespace, review.spec
        if not speaks_of(review, override):
            generation = override.metadata.generation
            message = (
                f"The site has changed the override since: it is at generation {generation}, this review "
                f"speaks of {spec.generation}. Look at it again: "
                f"roost override show {spec.override} -n {namespace}"
            )
            return OverrideReviewStatus(state="outdated", message=message)
        if spec.decision == "revert":
            message = "The site removes the override when the link brings it this."
            return OverrideReviewStatus(state="pending", message=message)
        try:
            exception = adopted(tx, self._cloud, namespace, override)
        except Unfit as error:
            message = f"It does not fit what is shared now: {error}. Change that, or revert the override."
            return OverrideReviewStatus(state="refused", message=message)
        if exception is None:
            message = "What it overrides is shared no longer: revert it."
            return OverrideReviewStatus(state="refused", message=message)
        before = tx.seek(SubcloudException, namespace, exception.metadata.name)
        if before is None or before.spec != exception.spec:
            tx.save(exception)
            self._tell(tx, review, f"What {namespace} has overridden by {spec.override} is adopted for it.")
        message = "The exception is made; the override ends when the site has it."
        subcloud = tx.seek(Subcloud, "", namespace)
        if subcloud is not None and subcloud.spec.management_state != "managed":
            message = f"The exception is made; {namespace} gets it when it is managed again."
        return OverrideReviewStatus(state="pending", message=message)

    def _tell(self, tx: Transaction, review: OverrideReview, text: str) -> None:
        by = f" By {review.spec.by}." if review.spec.by else ""
        entity = f"subcloud={review.metadata.namespace}"
        write_log(tx, self._cloud, event=f"override-{review.spec.decision}", entity=entity, text=text + by)


def adopted(tx: Transaction, cloud: str, subcloud: str, override: LocalOverride) -> SubcloudException | None:
    """The exception of a subcloud with an override laid over it; None when nothing shared is overridden.

    Raises Unfit when what is shared would not be right with it.
    """
    kind = override.spec.target.kind
    original = shared_original(tx, cloud, kind, override.spec.target.name)
    if original is None:
        return None
    original_name = str(original["metadata"]["name"])
    there = exceptions_in(tx, subcloud).get((subcloud, original_name), [])
    # The last one has the last word.
    before = there[-1] if there else None
    name = override_name(kind, original_name)
    patch = patch_of(override)
    whole: Raw = patches.composed(patch_of(before), patch) if before else patch
    laid_over(OVERRIDABLE[kind], original, whole)
    values, removes = patches.split(whole)
    metadata = before.metadata if before else Metadata(name=name, namespace=subcloud)
    reason = override.spec.reason or (before.spec.reason if before else "")
    withdrawn = override.spec.withdrawn or (before is not None and before.spec.withdrawn)
    spec = SubcloudExceptionSpec(
        kind=kind, name=original_name, patch=values, removes=removes, withdrawn=withdrawn, reason=reason
    )
    made = SubcloudException(metadata=metadata, spec=spec)
    return msgspec.structs.replace(before, spec=spec) if before else made

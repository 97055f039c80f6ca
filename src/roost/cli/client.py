"""Requests to one cloud's API: typed answers, deadlines, bounded retries, problems in plain words.

Reads are repeated when the connection breaks under them (at most RETRIES times); writes never are,
because the answer that was lost may have said yes. A server that says when to come back (429, 503
with Retry-After) is asked again for reads and writes alike: it did nothing.
"""

from __future__ import annotations

import difflib
import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import msgspec

from roost.cli import answers
from roost.cli.kinds import Kind
from roost.cli.kubeconfig import Target
from roost.cli.problems import Expired, Failed, NotFound, Problem, Unreachable
from roost.cli.refusals import problem_of, retry_after

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")
Raw = dict[str, Any]

RETRIES = 3
PAGE = 500
PAGES = 400
SEVERAL = 12
"""So many names are listed where one is not there."""
LARGEST_ANSWER = 256 * 1024 * 1024
LONGEST_LINE = 16 * 1024 * 1024
JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"
MANAGER = "roost"
"""Who owns, in managedFields, what this command has applied."""
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"

Query = Mapping[str, str | list[str]]
Method = Literal["GET", "POST", "PATCH", "PUT", "DELETE"]


class Page(msgspec.Struct, frozen=True, rename="camel"):
    """One page of a list, its items still undecoded."""

    metadata: answers.ListMeta = answers.ListMeta()
    items: list[msgspec.Raw] = []


class Client:
    """One cloud's API. Close it, or use it in `with`."""

    def __init__(self, target: Target, timeout: float = 30.0) -> None:
        self.target, self.timeout = target, timeout
        self._http: httpx.Client | None = None

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give up connections; watches in other threads end."""
        if self._http is not None:
            self._http.close()

    @property
    def http(self) -> httpx.Client:
        """The HTTP client, made at first use."""
        if self._http is None:
            from roost.cli.connection import open_http

            self._http = open_http(self.target, self.timeout)
        return self._http

    # -- objects

    def get(self, kind: Kind, namespace: str, name: str, type: type[T]) -> T:
        """One object; raises NotFound."""
        with self._known(kind, namespace, name):
            return self._read(kind, namespace, name, type)

    def seek(self, kind: Kind, namespace: str, name: str) -> Raw | None:
        """One object as it stands, or None when it is not there."""
        try:
            return self._read(kind, namespace, name, dict)
        except NotFound:
            return None

    def list_items(
        self, kind: Kind, namespace: str | None, type: type[T], query: Query | None = None
    ) -> tuple[list[T], str]:
        """All objects in a namespace (None: in all), and the revision the list is of."""
        for attempt in range(RETRIES):
            try:
                pages = list(self._pages(kind, namespace, query or {}))
                break
            except Expired as error:
                if attempt == RETRIES - 1:
                    raise Failed(f"the list of {kind.plural} changed faster than it could be read") from error
        items = [self._decode(bytes(raw), type) for page in pages for raw in page.items]
        return items, pages[0].metadata.resource_version

    def sift(
        self,
        kind: Kind,
        namespace: str | None,
        type: type[T],
        query: Query,
        keep: Callable[[Iterator[T]], list[T]],
    ) -> list[T]:
        """What `keep` keeps of a list that it is given page by page; from the start when the list expires."""
        for _ in range(RETRIES):
            pages = self._pages(kind, namespace, query)
            try:
                return keep(self._decode(bytes(raw), type) for page in pages for raw in page.items)
            except Expired:
                continue
        raise Failed(f"the list of {kind.plural} changed faster than it could be read")

    def table(
        self, kind: Kind, namespace: str | None, query: Query | None = None, name: str = ""
    ) -> answers.Table:
        """A list, or one object, as the server prints it; pages are put together."""
        tables: list[answers.Table] = []
        following = ""
        for _ in range(PAGES):
            asked = {**(query or {}), "limit": str(PAGE)} if not name else {}
            if following:
                asked["continue"] = following
            at = path(kind, namespace, name)
            doing = f"read {kind.singular} {name}" if name else f"list {kind.plural}"
            with self._known(kind, namespace, name):
                body = self.request("GET", at, query=asked, accept=TABLE, doing=doing)
            tables.append(self._decode(body, answers.Table))
            following = tables[-1].metadata.continue_
            if not following:
                break
        rows = [row for table in tables for row in table.rows]
        return msgspec.structs.replace(tables[0], rows=rows)

    def create(self, kind: Kind, namespace: str, body: Raw, *, dry_run: bool = False) -> Raw:
        """Create an object; the object as the server has it. Fields unknown to the kind are refused."""
        meta = body.get("metadata", {})
        name = meta.get("name") or f"{meta.get('generateName', '')}..."
        answer = self.request(
            "POST",
            path(kind, namespace),
            query={**_STRICT, **_dry(dry_run)},
            json=body,
            doing=f"create {kind.singular} {name}",
        )
        return self._decode(answer, dict)

    def patch(self, kind: Kind, namespace: str, name: str, body: Raw, *, dry_run: bool = False) -> Raw:
        """Merge-patch an object; the object as the server has it. Fields unknown to the kind are refused."""
        with self._known(kind, namespace, name):
            answer = self.request(
                "PATCH",
                path(kind, namespace, name),
                query={**_STRICT, **_dry(dry_run)},
                json=body,
                content_type=MERGE_PATCH,
                doing=f"change {kind.singular} {name}",
            )
        return self._decode(answer, dict)

    def apply(self, kind: Kind, namespace: str, body: Raw, query: Query) -> Raw:
        """Have the cloud make an object as `body` says, creating it when it is not there."""
        name = body["metadata"]["name"]
        answer = self.request(
            "PATCH",
            path(kind, namespace, name),
            query={"fieldManager": MANAGER, "fieldValidation": "Strict", **query},
            json=body,
            content_type=APPLY_PATCH,
            doing=f"apply {kind.singular} {name}",
        )
        return self._decode(answer, dict)

    def delete(self, kind: Kind, namespace: str, name: str, *, dry_run: bool = False) -> Raw:
        """Delete an object; the server's answer: a Status, or the object while finalizers hold it."""
        at, doing = path(kind, namespace, name), f"delete {kind.singular} {name}"
        with self._known(kind, namespace, name):
            answer = self.request("DELETE", at, query=_dry(dry_run), doing=doing)
        return self._decode(answer, dict) if answer else {}

    def token(
        self, kind: Kind, namespace: str, name: str, subresource: str, body: Raw
    ) -> answers.TokenStatus:
        """Have the cloud make a secret; the only time it is seen."""
        answer = self.request(
            "POST",
            f"{path(kind, namespace, name)}/{subresource}",
            json=body,
            doing=f"make a token for {kind.singular} {name}",
        )
        return self._decode(answer, answers.Token).status

    def document(self, at: str, type: type[T], doing: str) -> T:
        """Something that is no object: discovery, versions, schemas."""
        return self._decode(self.request("GET", at, doing=doing), type)

    # -- watching

    def lines(
        self, kind: Kind, namespace: str | None, query: Query, idle: float, *, accept: str = JSON
    ) -> Iterator[bytes]:
        """Raw lines of one watch request until the server ends it, or nothing comes for `idle` seconds.

        Raises Expired when the revision is too old, Unreachable when the connection fails.
        """
        import httpx

        asked = {**query, "watch": "true"}
        timeout = httpx.Timeout(self.timeout, connect=min(self.timeout, 10.0), read=idle)
        url = self._url(path(kind, namespace))
        try:
            with self.http.stream(
                "GET", url, params=asked, headers={"Accept": accept}, timeout=timeout
            ) as answer:
                if answer.status_code >= 400:
                    answer.read()
                    raise problem_of(answer.status_code, answer.content, f"watch {kind.plural}")
                yield from _lines(answer.iter_bytes())
        except httpx.ReadTimeout:
            return
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error

    def stream(self, at: str, query: Query, idle: float, *, doing: str) -> Iterator[bytes]:
        """Lines of an answer that is no list, as they come; each within `idle` seconds. Raises Problem."""
        import httpx

        timeout = httpx.Timeout(self.timeout, connect=min(self.timeout, 10.0), read=idle)
        try:
            with self.http.stream("GET", self._url(at), params=query, timeout=timeout) as answer:
                if answer.status_code >= 400:
                    answer.read()
                    raise self._refusal(answer.status_code, answer.content, doing)
                yield from _lines(answer.iter_bytes())
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error

    # -- requests

    def request(
        self,
        method: Method,
        at: str,
        *,
        doing: str,
        query: Query | None = None,
        json: Raw | None = None,
        content_type: str = JSON,
        accept: str = JSON,
    ) -> bytes:
        """One request, repeated where that is safe; the body of the answer. Raises Problem."""
        import httpx

        content = msgspec.json.encode(json) if json is not None else None
        headers = {"Accept": accept} | ({"Content-Type": content_type} if content is not None else {})
        for attempt in range(1, RETRIES + 1):
            try:
                answer = self.http.request(
                    method, self._url(at), params=dict(query or {}), content=content, headers=headers
                )
            except (httpx.ReadError, httpx.RemoteProtocolError) as error:
                if method != "GET" or attempt == RETRIES:
                    raise self._unreachable(error) from error
                time.sleep(0.1 * 2**attempt)
                continue
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                raise self._unreachable(error) from error
            if answer.status_code < 300:
                return answer.content
            pause = retry_after(answer.status_code, answer.content, answer.headers.get("retry-after", ""))
            if pause is None or attempt == RETRIES:
                raise self._refusal(answer.status_code, answer.content, doing)
            time.sleep(min(pause, 5.0))
        raise AssertionError("the last attempt returns or raises")

    def _read(self, kind: Kind, namespace: str, name: str, type: type[T]) -> T:
        body = self.request("GET", path(kind, namespace, name), doing=f"read {kind.singular} {name}")
        return self._decode(body, type)

    @contextmanager
    def _known(self, kind: Kind, namespace: str | None, name: str) -> Iterator[None]:
        """Say of an object that is not there which ones of its kind are."""
        try:
            yield
        except NotFound as absent:
            if name and not absent.remedy:
                absent.remedy = self._names(kind, namespace, name)
            raise

    def _names(self, kind: Kind, namespace: str | None, name: str) -> str:
        """What there is of a kind instead of what was named; the first of many."""
        try:
            body = self.request("GET", path(kind, namespace), query={"limit": str(PAGE)}, doing="look")
            page = self._decode(body, Page)
        except Problem:
            return ""
        names = [self._decode(bytes(raw), answers.Item).metadata.name for raw in page.items]
        return instead(kind, namespace or "", name, names, whole=not page.metadata.continue_)

    def _pages(self, kind: Kind, namespace: str | None, query: Query) -> Iterator[Page]:
        following = ""
        for _ in range(PAGES):
            asked = {**query, "limit": str(PAGE)} | ({"continue": following} if following else {})
            body = self.request("GET", path(kind, namespace), query=asked, doing=f"list {kind.plural}")
            page = self._decode(body, Page)
            yield page
            following = page.metadata.continue_
            if not following:
                return
        raise Failed(f"there are more than {PAGES * PAGE} {kind.plural}", "narrow the list with -n or -l")

    def _url(self, at: str) -> str:
        # The server of a subcloud's context has a path, which httpx's base_url would keep only for
        # relative URLs; whole URLs leave no doubt.
        return f"{self.target.server}{at}"

    def _decode(self, body: bytes, type: type[T]) -> T:
        try:
            return msgspec.json.decode(body, type=type)
        except msgspec.MsgspecError as error:
            raise Failed(
                f"the answer of {self.target.server} is not understood: {error}",
                "is that the address of a Roost cloud? `roost version` compares both sides",
            ) from error

    def _refusal(self, code: int, body: bytes, doing: str) -> Problem:
        problem = problem_of(code, body, doing)
        if isinstance(problem, NotFound | Unreachable) and self.target.derived:
            problem.remedy = (
                f"{self.target.name} is no context of the kubeconfig and was looked for as a subcloud"
            )
        return problem

    def _unreachable(self, error: Exception) -> Problem:
        reason = reason_of(error)
        remedy = "is the cloud running and is the address right? `roost --cloud NAME` chooses another cloud"
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            remedy = (
                "another cloud answers at this address (which kubeconfig is used, and from which machine?), "
                "or the cloud was made anew since: then log in again with `roost login`"
            )
        return Unreachable(
            f"cloud {self.target.name} at {self.target.server} can't be reached: {reason}", remedy
        )


def instead(kind: Kind, namespace: str, name: str, names: list[str], *, whole: bool) -> str:
    """What to do about a name that nothing has, `names` being those there are, all if `whole`. Pure."""
    where = f" in {namespace}" if kind.namespaced and namespace else ""
    near = [n for n in names if name in n] or difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    meant = f"did you mean {near[0]}? " if near else ""
    if not names:
        return f"there are no {kind.plural}{where}"
    if whole and len(names) <= SEVERAL:
        return f"{meant}there {'is' if len(names) == 1 else 'are'}{where}: {', '.join(names)}"
    return f"{meant}`roost get {kind.plural}` lists them"


def path(kind: Kind, namespace: str | None, name: str = "") -> str:
    """Path of a collection or an object, which may be named as `-o name` prints it."""
    name = name.removeprefix(f"{kind.singular}/")
    scope = f"/namespaces/{namespace}" if kind.namespaced and namespace else ""
    return f"{kind.group_path}{scope}/{kind.plural}" + (f"/{name}" if name else "")


def reason_of(error: Exception) -> str:
    """The reason a connection failed, in few words."""
    import httpx

    if isinstance(error, httpx.TimeoutException):
        return "no answer in time"
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted: {cause.verify_message}"
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror.lower()
        cause = cause.__cause__ or cause.__context__
    text = str(error) or type(error).__name__
    return text.split("] ", 1)[-1]


# A misspelt field would otherwise be dropped without a word: no rules, with a default of deny.
_STRICT = {"fieldValidation": "Strict"}


def _dry(dry_run: bool) -> Query:  # noqa: FBT001  (one private place where the flag becomes a query)
    return {"dryRun": "All"} if dry_run else {}


def _lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Lines of JSON: ended by a line feed alone, for JSON may have other separators inside its texts. Raises
    httpx.HTTPError for one that is too long."""
    import httpx

    rest = b""
    for piece in pieces:
        *whole, rest = (rest + piece).split(b"\n")
        yield from whole
        if len(rest) > LONGEST_LINE:
            raise httpx.RemoteProtocolError(f"a line of more than {LONGEST_LINE} bytes")
    if rest:
        yield rest

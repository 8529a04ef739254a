"""The same requests to two engines, and what a client could tell them apart by."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from tests.support.installed import Answer, request

_HEADERS = frozenset({"content-type", "transfer-encoding", "content-length", "docker-experimental",
                      "ostype", "api-version", "cache-control", "pragma"})  # fmt: skip


@dataclass(frozen=True)
class Difference:
    """One request and what differed: status, header or key path, ours and theirs."""

    request: str
    where: str
    ours: object
    theirs: object


@dataclass
class Twins:
    """Two engines by their sockets, asked the same."""

    ours: str
    theirs: str
    version: str = "v1.41"
    differences: list[Difference] = field(default_factory=list)

    def ask(
        self, method: str, path: str, body: object = None, **query: object
    ) -> tuple[Answer, Answer]:
        """The same request to both; statuses, headers, JSON shapes and error texts are compared."""
        name = f"{method} {path}"
        first = request(self.ours, method, path, body, version=self.version, **query)  # type: ignore[arg-type]
        second = request(self.theirs, method, path, body, version=self.version, **query)  # type: ignore[arg-type]
        self._compare(name, "status", first.status, second.status)
        self._compare(name, "headers", _headers(first), _headers(second))
        if first.status == second.status:
            self._bodies(name, first, second)
        return first, second

    def _bodies(self, name: str, first: Answer, second: Answer) -> None:
        if second.headers.get("Content-Type", "").startswith("application/json") and second.body:
            if second.status >= 400:
                self._compare(name, "message", first.message, second.message)
                return
            lines = second.body.count(b"\n") > 1
            if not lines:
                missing = shape(second.json()) - shape(first.json())
                more = shape(first.json()) - shape(second.json())
                self._compare(name, "keys", frozenset(more), frozenset(missing), wanted=frozenset())

    def _compare(
        self, name: str, where: str, ours: object, theirs: object, *, wanted: object = None
    ) -> None:
        if wanted is not None:
            if ours != wanted or theirs != wanted:
                self.differences.append(Difference(name, where, ours, theirs))
        elif ours != theirs:
            self.differences.append(Difference(name, where, ours, theirs))


def _headers(answer: Answer) -> Mapping[str, str]:
    """What clients look at; lengths and dates differ by nature."""
    named = {name.lower(): value for name, value in answer.headers.items()}
    shown = {name: value for name, value in named.items() if name in _HEADERS}
    shown.pop("api-version", None)
    if "content-length" in shown and shown["content-length"] != "0":
        shown["content-length"] = "some"
    return shown


def shape(value: object, prefix: str = "") -> set[str]:
    """The key paths of a JSON document; of a list, those of its first element."""
    if isinstance(value, dict):
        found: set[str] = set()
        for key, inner in value.items():
            found.add(f"{prefix}.{key}")
            if not _free_keys(f"{prefix}.{key}"):
                found |= shape(inner, f"{prefix}.{key}")
        return found
    if isinstance(value, list):
        return shape(value[0], f"{prefix}[]") if value else set()
    return set()


def _free_keys(path: str) -> bool:
    """Objects whose keys are data (labels, ports, networks), not structure."""
    ends: Iterable[str] = ("Labels", "Ports", "Containers", "Options", "Annotations", "Runtimes",
                           "IndexConfigs", "LogConfig.Config", "GraphDriver.Data", "Sysctls")  # fmt: skip
    return any(path.endswith(f".{end}") for end in ends)

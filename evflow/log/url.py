"""Where a log's server is: the URL, taken apart.

By hand and not with `urllib.parse`, whose import costs more than a whole round trip to the server, in
processes that somebody waits for.
"""

from typing import NamedTuple

from evflow.log.errors import LogUrlInvalid

DEFAULT_PORT = 6379
DEFAULT_SENTINEL_PORT = 26379
SCHEMES = ("unix", "redis", "rediss", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster")
SENTINEL_OPTIONS = ("sentinel_username", "sentinel_password")
TLS_OPTIONS = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname")


class Address(NamedTuple):
    """A server and how to enter it.

    Attributes:
        scheme: `unix`, `redis` or `rediss` (TLS), the last two also with `+sentinel` or `+cluster`.
        path: The socket of a `unix` address.
        host: Host of the others.
        port: Port of the others.
        username: The user, or None for the server's default one.
        password: The password, or None.
        db: The number of the database.
        options: What the URL's query says of TLS: see `TLS_OPTIONS`; and how to enter Sentinels.
        seeds: Hosts and ports of Sentinels, or of nodes of a cluster: some of them, the others are asked of these.
        service: What the Sentinels call the servers.
    """

    scheme: str
    path: str
    host: str
    port: int
    username: str | None
    password: str | None
    db: int
    options: dict[str, str]
    seeds: tuple[tuple[str, int], ...] = ()
    service: str = ""

    @property
    def is_local(self) -> bool:
        """Whether the server is surely on this machine."""
        return not self.seeds and self._is_here

    @property
    def _is_here(self) -> bool:
        return self.scheme == "unix" or self.host in ("localhost", "::1") or self.host.startswith("127.")

    @property
    def is_cluster(self) -> bool:
        """Whether keys lie on several servers."""
        return self.scheme.endswith("cluster")

    @property
    def is_sentinel(self) -> bool:
        """Whether Sentinels know where the server is."""
        return self.scheme.endswith("sentinel")

    def at(self, host: str, port: int) -> "Address":
        """One server of many, entered as the URL says."""
        options = {name: text for name, text in self.options.items() if name not in SENTINEL_OPTIONS}
        return Address(self.scheme.partition("+")[0], "", host, port, self.username, self.password, self.db, options)

    @property
    def shown(self) -> str:
        """For people and messages: without the password."""
        if self.seeds:
            places = ",".join(f"{_bracketed(host)}:{port}" for host, port in self.seeds)
            return f"the cluster of {places}" if self.is_cluster else f"'{self.service}' of the Sentinels {places}"
        return self.path if self.scheme == "unix" else f"{_bracketed(self.host)}:{self.port}"


def parse(url: str) -> Address:
    """Take a URL apart.

    Raises:
        LogUrlInvalid: It names no server.
    """
    scheme, separator, rest = url.partition("://")
    shown = f"{scheme}://{rest.rpartition('@')[2]}" if separator else url
    if not separator or scheme not in SCHEMES:
        raise LogUrlInvalid(shown, f"it must begin with {', '.join(f'{name}://' for name in SCHEMES)}")
    rest, _, query = rest.partition("?")
    options = dict(_pair(part) for part in query.split("&") if part)
    username, password, rest = _credentials(rest, scheme)
    database = options.pop("db", "")
    known = (TLS_OPTIONS if scheme.startswith("rediss") else ()) + (SENTINEL_OPTIONS if scheme.endswith("sentinel") else ())
    unknown = set(options) - set(known)
    if unknown:
        raise LogUrlInvalid(shown, f"{scheme}:// has no option '{min(unknown)}'")
    if scheme == "unix":
        if not rest.startswith("/"):
            raise LogUrlInvalid(shown, "a socket's path must be absolute")
        return Address(scheme, _decoded(rest), "", 0, username, password, _number(database, shown), options)
    place, _, tail = rest.partition("/")
    if "+" in scheme:
        return _many(scheme, place, tail, (username, password), database, options, shown)
    host, port = _host_and_port(place, shown)
    return Address(scheme, "", host, port, username, password, _number(database or tail.strip("/"), shown), options)


def _many(
    scheme: str, places: str, tail: str, user: tuple[str | None, str | None], database: str, options: dict[str, str], shown: str
) -> Address:
    """An address of Sentinels or of a cluster's nodes: hosts between commas."""
    sentinel = scheme.endswith("sentinel")
    default = DEFAULT_SENTINEL_PORT if sentinel else DEFAULT_PORT
    seeds = tuple(_host_and_port(place, shown, default) for place in places.split(","))
    service, _, number = tail.partition("/") if sentinel else ("", "", tail)
    db = _number(database or number.strip("/"), shown)
    if sentinel and not service:
        raise LogUrlInvalid(shown, "behind the Sentinels stands the name that they have for the server, as in /mymaster")
    if db and not sentinel:
        raise LogUrlInvalid(shown, "a cluster has no other database than 0")
    return Address(scheme, "", *seeds[0], *user, db, options, seeds, _decoded(service))


def _credentials(rest: str, scheme: str) -> tuple[str | None, str | None, str]:
    # A socket's path may hold an "@"; then the text before it begins with a slash.
    before, at, after = rest.rpartition("@")
    if not at or (scheme == "unix" and before.startswith("/")):
        return None, None, rest
    username, _, password = before.partition(":")
    return _decoded(username) or None, _decoded(password) or None, after


def _host_and_port(place: str, shown: str, default: int = DEFAULT_PORT) -> tuple[str, int]:
    if place.startswith("["):
        host, _, tail = place[1:].partition("]")
        port = tail.removeprefix(":")
    else:
        host, _, port = place.partition(":")
    return _decoded(host) or "localhost", _number(port, shown, default)


def _number(text: str, shown: str, default: int = 0) -> int:
    if not text:
        return default
    if not (text.isascii() and text.isdecimal() and int(text) < 65_536):
        raise LogUrlInvalid(shown, f"'{text}' is not a number of a port or a database")
    return int(text)


def _pair(part: str) -> tuple[str, str]:
    name, _, value = part.partition("=")
    return _decoded(name), _decoded(value)


def _decoded(text: str) -> str:
    if "%" not in text:
        return text
    from urllib.parse import unquote  # rare, and dear to import

    return unquote(text)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host

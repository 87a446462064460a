"""`rediss://`: the same log behind TLS, and certificates that are not trusted."""

import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import anyio.lowlevel
import psutil
import pytest

from evflow.core.chain import links
from evflow.core.ids import FlowName, RunId, RunNumber
from evflow.log import connect, open_event_log
from evflow.log.errors import LogConnectionLost, LogForeign, LogUnreachable
from evflow.log.protocol import AppendCall, Head
from evflow.log.transport import connect_blocking
from evflow.log.url import parse
from tests.contract.log_worlds import raw_server
from tests.ports import free_port
from tests.redis_server import DebianRedis
from tests.waiting import wait_until

pytestmark = pytest.mark.may_block("a TLS context reads its certificates, and redis-py makes it in the loop")

SHARD = "run:Flow:1"
RUN = RunId(FlowName("Flow"), RunNumber(1))


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """Answer a key and a certificate of 'localhost' that nobody trusts by itself."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl on PATH, which makes the server's certificate")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command, *names], check=True, capture_output=True)
    return key, certificate


@pytest.fixture
def port(certificate: tuple[Path, Path]) -> Iterator[int]:
    """Answer the port of a server that speaks TLS there."""
    missing = DebianRedis.why_missing()
    if missing:
        pytest.skip(missing)
    key, public = certificate
    port = free_port()
    options = ("--tls-port", str(port), "--tls-cert-file", str(public), "--tls-key-file", str(key), "--tls-ca-cert-file", str(public))
    with raw_server("redis-server", *options, "--tls-auth-clients", "no"):
        yield port


async def test_a_log_behind_tls_is_a_log(port: int, certificate: tuple[Path, Path]) -> None:
    url = f"rediss://localhost:{port}?ssl_ca_certs={certificate[1]}"
    log = await open_event_log(url)
    lease = await log.take(SHARD, "owner", 60)
    events = [b"secret"]
    await log.append(lease, AppendCall(RUN, Head(), events, links(bytes(32), events)))
    client = connect(url)
    assert client.report(SHARD, RUN, b"report")
    assert [entry.payload for entry in await log.receive(SHARD, b"0", 5)] == [b"report"]
    assert [event.payload for event in client.follow(SHARD, RUN, 0, 5)] == events
    client.close()
    await log.aclose()


async def test_a_server_that_takes_no_leave_keeps_no_connection_open(port: int, certificate: tuple[Path, Path]) -> None:
    """TLS has a farewell, which a server that hangs does not answer."""

    def connections() -> list[int]:
        return [
            one.fd
            for one in psutil.Process().net_connections()
            if one.status != psutil.CONN_LISTEN and getattr(one.raddr, "port", 0) == port
        ]

    log = await open_event_log(f"rediss://localhost:{port}?ssl_ca_certs={certificate[1]}")
    assert connections()
    [server] = [
        child
        for child in psutil.Process().children(recursive=True)
        if any(one.status == psutil.CONN_LISTEN and one.laddr.port == port for one in child.net_connections())
    ]
    server.suspend()
    try:
        await log.aclose()
        await anyio.lowlevel.checkpoint()
        assert connections() == []
    finally:
        server.resume()


def test_the_end_of_a_connection_is_seen_through_tls(port: int, certificate: tuple[Path, Path]) -> None:
    client = connect(f"rediss://localhost:{port}?ssl_ca_certs={certificate[1]}")
    client.flows()
    assert client.is_connected(), "what TLS says of itself is no end"
    other = connect_blocking(parse(client.url))
    other.call("CLIENT", "KILL", "TYPE", "normal")
    other.close()
    wait_until(lambda: not client.is_connected(), "the connection's end is seen")
    assert client.flows() == []
    client.close()


async def test_a_certificate_that_is_not_trusted_is_refused(port: int) -> None:
    client = connect(f"rediss://localhost:{port}")
    with pytest.raises(LogUnreachable, match=r"(?i)certificate"):
        client.flows()
    with pytest.raises(LogUnreachable, match=r"(?i)certificate"):
        await open_event_log(f"rediss://localhost:{port}")


def test_speaking_tls_to_a_server_that_does_not_ends_with_an_error_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVFLOW_LOG_TIMEOUT", "0.3")
    with socket.create_server(("127.0.0.1", 0)) as silent:  # as Redis is, which waits for the end of a line
        client = connect(f"rediss://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(LogUnreachable, match="does not speak TLS"):
            client.flows()
        client.close()


def test_speaking_plainly_to_tls_ends_with_an_error_that_says_so(port: int) -> None:
    client = connect(f"redis://localhost:{port}")
    with pytest.raises((LogConnectionLost, LogForeign)):
        client.flows()
    client.close()

"""Somebody who follows a runbook: a `Reader` of pages with an installation to look after.

The page's commands are carried out as they stand, but for what only a machine of its own could have:

* `log-1:6379` and its like are servers of this machine, each with an append-only file. `<!-- servers: log-1:6379, log-2:6379 after log-1:6379 -->`
  starts them, the second as a replica of the first; `<!-- killed: log-1:6379 -->` kills one, `<!-- lost: log-1:6379 -->` starts it anew and empty.
* `systemctl start`, `stop` and `restart` act on the units of `ops/systemd`: what ExecStart says is run, with the settings of the unit and of
  `/etc/evflow/evflow.env`, here and as the page has edited it. Commands have these settings as well. `ssh log-1 systemctl start redis-server`
  starts a server again.
* `<!-- disk: /data of 2 MB -->` is a file system of that size, `<!-- disk: /data -->` a folder; the first one has the store.

* `<!-- gone: /data/folder -->` removes a folder.
* `<!-- until: Flow/1 waits for a worker -->`: a block is carried out as soon as `evflow explain` says so of the run.

Markers of one block have `; ` between them.
"""

import re
import shlex
import shutil
import signal
import subprocess
from functools import partial
from pathlib import Path

import pytest

from evflow.log.embedded.binaries import _in_wheel
from evflow.log.errors import LogUnavailable
from evflow.log.transport import connect_blocking
from evflow.log.url import parse
from tests.conftest import REPOSITORY
from tests.e2e.test_docs import BIN, COMMAND_S, Block, Reader
from tests.ports import free_port
from tests.waiting import wait_until

UNITS = REPOSITORY / "ops" / "systemd"
_ALL_SHARDS, _NO_OWNER = "8 of 8 shards", "waits for a scheduler"
BEGUN = {"evflow-scheduler": '"event":"shard taken"', "evflow-worker": "worker begins"}


class Operator(Reader):
    """Who follows a runbook."""

    def __init__(self) -> None:
        super().__init__()
        self.etc = self.folder / "etc"
        self.etc.mkdir()
        self.ports: dict[str, int] = {}
        self.primaries: dict[str, str] = {}
        self.servers: dict[str, subprocess.Popen[bytes]] = {}
        self.units: dict[str, subprocess.Popen[bytes]] = {}
        self.disks: dict[str, Path] = {}
        self.mounted: list[Path] = []

    # --- what a page has ----------------------------------------------------------------------------------

    def follow(self, block: Block) -> None:
        if (moment := block.says("until")) is not None:
            run, _, text = moment.partition(" ")
            wait_until(lambda: text in self.answer("explain", run), moment)
        for name, _, primary in (text.partition(" after ") for text in (block.says("servers") or "").split(", ") if text):
            self.ports[name], self.primaries[name] = free_port(), primary
            self.serve(name)
        if self.servers and not (self.etc / "evflow.env").exists():
            (self.etc / "evflow.env").write_text(f"EVFLOW_REDIS_URL=redis://{next(iter(self.servers))}\n")
        if (killed := block.says("killed")) is not None:
            self.kill(killed)
        if (lost := block.says("lost")) is not None:
            if lost in self.servers:
                self.kill(lost)
            shutil.rmtree(self.folder / lost.partition(":")[0])
            self.serve(lost)
        if (path := block.says("gone")) is not None:
            shutil.rmtree(self.real(path))
        if (disk := re.fullmatch(r"(/\w+)(?: of (\d+) MB)?", block.says("disk") or "")) is not None:
            self.mount(disk[1], int(disk[2] or 0))
        super().follow(block)

    def type(self, block: Block, command: str, output: list[str] | None, *, expected: int = 0) -> None:
        words = shlex.split(command, comments=True)
        if words[:1] == ["ssh"] and words[2:] == ["systemctl", "start", "redis-server"]:
            self.serve(next(name for name in self.ports if name.startswith(f"{words[1]}:")))
        elif words[:1] == ["systemctl"]:
            assert output in (None, []), f"{block}: systemctl says nothing"
            for unit in [word for word in words[2:] if not word.startswith("-")]:
                if words[1] == "kill":
                    self.units[unit].send_signal(getattr(signal, f"SIG{words[2].removeprefix('--signal=')}"))
                    self.units.pop(unit).wait(COMMAND_S)
                    self.start(unit)  # Restart=always
                if words[1] in ("stop", "restart"):
                    self.stop(unit)
                if words[1] in ("start", "restart"):
                    self.start(unit)
        else:
            if words[:3] == ["evflow", "scheduler", "status"] and _ALL_SHARDS in " ".join(output or ()):
                wait_until(lambda: _ALL_SHARDS in self.answer("scheduler", "status"), "the scheduler owns its shards, one after the other")
            if words[:2] == ["evflow", "explain"] and _NO_OWNER not in " ".join(output or ()):
                wait_until(lambda: _NO_OWNER not in self.answer(*words[1:]), "the scheduler has taken again what a stall took from it")
            super().type(block, command, output, expected=expected)

    def run(self, command: list[str], folder: Path | None = None) -> subprocess.CompletedProcess[str]:
        env_file = self.etc / "evflow.env"
        for line in env_file.read_text().splitlines() if env_file.exists() else []:
            name, _, text = line.partition("=")
            self.variables[name] = self.real(text)
        return super().run([self.real(word) for word in command], folder)

    def real(self, text: str) -> str:
        """What a page says, as it is on this machine."""
        for name, port in self.ports.items():
            text = text.replace(name, f"127.0.0.1:{port}")
        for name, path in self.disks.items():
            text = re.sub(rf"(?<![\w.]){name}\b", str(path), text)
        return text.replace("/etc/evflow", str(self.etc)).replace("/opt/evflow/bin", str(BIN))

    def neutral(self, text: str) -> str:
        for name, port in self.ports.items():
            text = text.replace(f"127.0.0.1:{port}", name)
        for name, path in self.disks.items():
            text = text.replace(str(path), name)
        return super().neutral(text)

    # --- servers and disks --------------------------------------------------------------------------------

    def serve(self, name: str) -> None:
        """Start a server, with what it had on its disk."""
        folder = self.folder / name.partition(":")[0]
        folder.mkdir(exist_ok=True)
        options = {
            "port": self.ports[name],
            "bind": "127.0.0.1",
            "dir": folder,
            "appendonly": "yes",
            "save": '""',
            "repl-diskless-sync-delay": 0,
        }
        if primary := self.primaries[name]:
            options["replicaof"] = f"127.0.0.1 {self.ports[primary]}"
        configuration = folder / "redis.conf"
        if not configuration.exists():  # else it may have been written anew, by CONFIG REWRITE
            configuration.write_text("".join(f"{option} {value}\n" for option, value in options.items()))
        program = _in_wheel() or shutil.which("valkey-server") or shutil.which("redis-server")
        assert program is not None
        quiet = subprocess.DEVNULL
        self.servers[name] = subprocess.Popen(
            [program, str(configuration)], stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True
        )
        for one in [name, *(other for other in self.servers if self.primaries[other] == name)]:
            wait_until(partial(self.is_there, one), f"{one} answers, and has what its primary has")

    def is_there(self, name: str) -> bool:
        """Whether a server answers, and follows its primary if it has one."""
        try:
            wire = connect_blocking(parse(f"redis://127.0.0.1:{self.ports[name]}"))
        except LogUnavailable:
            return False
        try:
            told: str = wire.call("INFO", "replication").decode()
        except LogUnavailable:
            return False
        finally:
            wire.close()
        return "master_link_status:down" not in told

    def kill(self, name: str) -> None:
        self.servers[name].kill()
        self.servers.pop(name).wait(COMMAND_S)

    def mount(self, name: str, megabytes: int) -> None:
        """A file system; only a folder where no size is said. The store is on the first one."""
        folder = self.folder / f"disk{name.replace('/', '-')}"
        folder.mkdir()
        if megabytes:
            done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", folder], check=False, capture_output=True)
            if done.returncode:
                pytest.skip(f"no file system can be mounted here: {done.stderr.decode().strip()}")
            self.mounted.append(folder)
        self.disks[name] = folder
        if len(self.disks) == 1:
            with (self.etc / "evflow.env").open("a") as file:
                file.write(f"EVFLOW_STORE={folder}/store\n")

    # --- units --------------------------------------------------------------------------------------------

    def start(self, unit: str) -> None:
        """What systemd would run, with what the unit sets, but below this page's own home."""
        kind, _, instance = unit.partition("@")
        text = (UNITS / (f"{kind}@.service" if instance else f"{kind}.service")).read_text().replace("%i", instance)
        own = dict(re.findall(r"^Environment=(\w+)=(.*)$", text, re.MULTILINE))
        own.pop("EVFLOW_HOME", None)
        own |= {name: f"127.0.0.1:{free_port()}" for name in own if name == "EVFLOW_HTTP"}
        (command,) = re.findall(r"^ExecStart=(.*)$", text, re.MULTILINE)
        command = self.real(command.replace("${SLOTS}", own.pop("SLOTS", "")))
        self.run(["true"])  # reads the settings of now
        log = self.folder / f"{unit}.journal"
        before = log.stat().st_size if log.exists() else 0
        with log.open("ab") as file:
            self.units[unit] = subprocess.Popen(
                shlex.split(command),
                cwd=self.folder,
                env={**self.variables, **own},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        wait_until(lambda: BEGUN[kind] in log.read_text()[before:], f"{unit} works")

    def stop(self, unit: str) -> None:
        process = self.units.pop(unit)
        process.send_signal(signal.SIGTERM)
        assert process.wait(COMMAND_S) == 0, (self.folder / f"{unit}.journal").read_text()

    def leave(self) -> None:
        for unit in list(self.units):
            self.stop(unit)
        super().leave()

    def abandon(self) -> None:
        for process in [*self.units.values(), *self.servers.values()]:
            process.kill()
            process.wait()
        for folder in self.mounted:
            wait_until(partial(unmounted, folder), "the disk is not in use")
        super().abandon()


def unmounted(folder: Path) -> bool:
    """Whether a file system could be taken away."""
    return subprocess.run(["umount", folder], check=False, capture_output=True).returncode == 0

"""`Deployer`: deploy a flow from Python, as `python flow.py deploy` does it from a shell.

A flow that is named by its file is deployed in a process of its own, so that its imports are its own and its file is
loaded as `__main__`. A flow that is given as a class is deployed here, where it was imported already. Both go into the log that this
process uses.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from evflow import config
from evflow.client.connection import shared_log
from evflow.core.deployments import DEFAULT_NAME
from evflow.core.ids import FlowName
from evflow.deployments.catalog import Reference, deployed
from evflow.deployments.deployed import DeployedFlow, in_thread
from evflow.deployments.own_process import ANOTHER_LOG, FlowFileMissing, ProcessFailed, environment
from evflow.errors import EnvironmentProblem, UsageError
from evflow.flow.invocation import command
from evflow.flow.steps import facts
from evflow.imports import framework_view
from evflow.runner.words import top_words

if TYPE_CHECKING:
    from evflow.flow.flowspec import FlowSpec


class DeployFailed(ProcessFailed):
    """The flow's file could not be deployed. Message and hint are those of `python flow.py deploy`."""

    code = "deploy-failed"

    def __init__(self, file: Path, returncode: int, stderr: str) -> None:
        super().__init__(f"'{file}' was not deployed", returncode, stderr)


class DeployedElsewhere(EnvironmentProblem):
    """The flow's file was deployed, into a log that this process does not use."""

    code = "deployed-elsewhere"

    def __init__(self, wanted: Reference, where: str) -> None:
        super().__init__(
            f"'{wanted}' was deployed, and not into the log of this process, {where}.",
            ANOTHER_LOG,
        )


class BackendMissing(UsageError):
    """Metaflow deploys to this system, evflow does not."""

    code = "backend-missing"

    def __init__(self, name: str) -> None:
        super().__init__(
            f"evflow does not deploy to {name}: its own scheduler carries deployed flows out.",
            "Use Deployer(...).scheduler().create(), and start `evflow scheduler` on a machine that stays.",
        )


class Deployer:
    """Deploys a flow: `Deployer("flow.py").scheduler().create()`.

    Args:
        flow: The path of the flow's file; or its class, which has to come from a file.
        show_output: Show on stderr what the deploying process says.
        profile: Accepted and not used: evflow's settings are variables and files.
        env: Environment variables of the deploying process, beside those of this one. Not for a class.
        cwd: Its working folder; this process's own if not given. Not for a class.
        decospecs: Decorators for every step that lacks them, as `--with` takes them (`retry:times=3`). A class has them from then on.
        config: The flow's configurations as files: a map of names to paths, or pairs of them.
        config_value: Configurations by their values, or as texts that a file would hold.
        branch: The branch of the flow's project that it is deployed in.
        production: Deploy for production; of a project's flow, in its production branch.
        top_level: More options that stand before the command, as for `Runner`: `pylint=False`. Not for a class.

    Raises:
        FlowFileMissing: There is no such file.
        ArgumentUnfit: A value of an option is none that can be given.
    """

    def __init__(
        self,
        flow: "str | os.PathLike[str] | type[FlowSpec]",
        show_output: bool = True,
        profile: str | None = None,
        env: Mapping[str, str] | None = None,
        cwd: "str | os.PathLike[str] | None" = None,
        *,
        decospecs: Sequence[str] = (),
        config: "Mapping[str, str] | Iterable[tuple[str, str]]" = (),
        config_value: "Mapping[str, Any] | Iterable[tuple[str, Any]]" = (),
        branch: str | None = None,
        production: bool = False,
        **top_level: Any,
    ) -> None:
        del profile
        self._class = flow if isinstance(flow, type) else None
        self._file = Path() if isinstance(flow, type) else Path(cwd or "", flow if isinstance(flow, os.PathLike) else str(flow)).absolute()
        if self._class is None and not self._file.is_file():
            raise FlowFileMissing(self._file, "Deployer takes the path of a flow's file, or the flow's class.")
        self._show_output = show_output
        self._env = dict(env or {})
        self._cwd = cwd
        self._configs, self._config_values = dict(config), dict(config_value)
        self._branch, self._production = branch, production
        self._words = [*top_words(top_level)]
        self._decospecs = (decospecs,) if isinstance(decospecs, str) else tuple(decospecs)

    def scheduler(self, name: str | None = None) -> "SchedulerDeployer":
        """Deploy for evflow's scheduler.

        Args:
            name: The deployment's name; a flow may be deployed under several. Not given it is `default`, of a project's flow PROJECT.BRANCH.
        """
        return SchedulerDeployer(self._deploy, name)

    def argo_workflows(self, **_: object) -> NoReturn:
        """Metaflow's; evflow has `scheduler()`.

        Raises:
            BackendMissing: Always.
        """
        raise BackendMissing("Argo Workflows")

    def step_functions(self, **_: object) -> NoReturn:
        """Metaflow's; evflow has `scheduler()`.

        Raises:
            BackendMissing: Always.
        """
        raise BackendMissing("Step Functions")

    def airflow(self, **_: object) -> NoReturn:
        """Metaflow's; evflow has `scheduler()`.

        Raises:
            BackendMissing: Always.
        """
        raise BackendMissing("Airflow")

    def __repr__(self) -> str:
        return f"Deployer({self._class.__name__ if self._class is not None else str(self._file)!r})"

    def _deploy(self, name: str | None, *, production: bool, tags: tuple[str, ...], options: Mapping[str, Any]) -> DeployedFlow:
        production = production or self._production
        with framework_view():
            if self._class is not None:
                return self._in_process(self._class, name, production=production, tags=tags, options=options)
            return self._in_its_own_process(name, production=production, tags=tags, options=options)

    def _config_words(self) -> Iterator[str]:
        for name, path in self._configs.items():
            yield from ("--config", name, str(path))
        for name, value in self._config_values.items():
            yield from ("--config-value", name, value if isinstance(value, str) else json.dumps(value))

    def _settle(self, flow: type) -> None:
        if facts(flow).configs or self._configs or self._config_values:
            from evflow.flow import config_values

            config_values.settle(flow, config_values.resolve(flow, self._configs, self._config_values, user=config.get("user")))

    def _in_its_own_process(self, name: str | None, *, production: bool, tags: tuple[str, ...], options: Mapping[str, Any]) -> DeployedFlow:
        words = [*command(str(self._file)), *self._words, *self._config_words(), "deploy", "--json"]
        words += ["--name", name] if name is not None else []
        words += ["--branch", self._branch] if self._branch is not None else []
        words += ["--production"] if production else []
        words += [word for tag in tags for word in ("--tag", tag)]
        words += [word for spec in self._decospecs for word in ("--with", spec)]
        words += [word for option, given in options.items() for word in (f"--{option.replace('_', '-')}", str(given))]
        done = subprocess.run(  # without a deadline: what the flow imports may take its time
            words, cwd=self._cwd, env=environment(self._env), capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
        )  # fmt: skip
        if self._show_output:
            sys.stderr.write(done.stderr)
        try:
            said: dict[str, Any] = json.loads(done.stdout) if done.returncode == 0 else {}
            wanted, manifest = Reference(FlowName(said["flow"]), said["name"]), bytes.fromhex(said["manifest"])
        except (ValueError, LookupError, TypeError):  # the file is no flow's, say, and printed something of its own
            raise DeployFailed(self._file, done.returncode, done.stderr) from None
        here = shared_log().ask(lambda log: deployed(log, wanted.flow)).get(wanted.name)
        if here is None or here.manifest != manifest:
            raise DeployedElsewhere(wanted, shared_log().where)
        return DeployedFlow.of(wanted)

    def _in_process(
        self, flow: type, name: str | None, *, production: bool, tags: tuple[str, ...], options: Mapping[str, Any]
    ) -> DeployedFlow:  # fmt: skip
        from evflow.deployments.beginning import RunOptions
        from evflow.deployments.deploy import DeployRequest, deploy, prepare
        from evflow.flow.decorators.project import project_of
        from evflow.store import open_store

        def wished(setting: str) -> Any:
            return options.get(setting, config.get(setting))

        self._settle(flow)
        project = project_of(flow, user=config.get("user"), branch=self._branch, production=production)
        name = name or (DEFAULT_NAME if project is None else project.deployment)
        file = getattr(sys.modules.get(flow.__module__), "__file__", None)
        request = DeployRequest(
            flow=flow,
            flow_file=str(Path(file).absolute()) if file else "",
            name=name,
            namespace=wished("namespace"),
            namespace_given="namespace" in options,
            production=production or (project is not None and project.production),
            tags=tags,
            user=config.get("user"),
            host=os.uname().nodename,
            options=RunOptions(
                max_workers=wished("max_workers"),
                max_num_splits=wished("max_num_splits"),
                max_log_size_mb=wished("max_log_size"),
                task_budget=wished("task_budget"),
                retry_scale=config.get("retry_scale"),
                with_specs=(*config.get("default_decospecs"), *self._decospecs),
                start_method=wished("start_method"),
                fallback="error",
                durability=wished("durability"),
                project=project,
            ),
        )
        prepared = prepare(request, open_store(config.get("store")), config.home())
        wanted = Reference(FlowName(flow.__name__), name)
        shared_log().ask(lambda log: log.flow_seq(wanted.flow))  # a connection that broke is replaced before it is written on
        shared_log().ask(lambda log: deploy(log, request, prepared), repeat=False)
        return DeployedFlow.of(wanted)


class SchedulerDeployer:
    """Deploys a flow for evflow's scheduler, under a name."""

    def __init__(self, deploy: Callable[..., DeployedFlow], name: str | None) -> None:
        self._deploy = deploy
        self._name = name

    def create(
        self,
        *,
        name: str | None = None,
        namespace: str | None = None,
        production: bool = False,
        tags: Sequence[str] = (),
        max_workers: int | None = None,
        max_num_splits: int | None = None,
        max_log_size: int | None = None,
        task_budget: int | None = None,
        start_method: str | None = None,
        durability: str | None = None,
    ) -> DeployedFlow:
        """Deploy the flow, as the next version of what is deployed under this name. Nothing is run.

        Args:
            name: The deployment's name, `default` if none is given; of a project's flow PROJECT.BRANCH.
            namespace: Runs are in this namespace, and carry it as a tag.
            production: Runs are in the namespace `production:<Flow>`, unless another is named; replaced by a production deployment only.
            tags: Tags of every run.
            max_workers: Tasks of a run at once. As all that follows: the setting of that name where it is not given.
            max_num_splits: Tasks that one foreach may make.
            max_log_size: Output kept of one task, in MB.
            task_budget: Tasks of a whole run.
            start_method: `auto`, `fork` or `spawn`.
            durability: `everysec`, `fsync` or `replicated`.

        Raises:
            DeployFailed: The flow's file could not be deployed; the message says why.
            EvflowError: A class could not be: as for `python flow.py deploy`.
            LogUnavailable: The server cannot be used.
        """
        given: dict[str, Any] = {
            "namespace": namespace, "max_workers": max_workers, "max_num_splits": max_num_splits, "max_log_size": max_log_size,
            "task_budget": task_budget, "start_method": start_method, "durability": durability,
        }  # fmt: skip
        options = {option: value for option, value in given.items() if value is not None}
        wished_tags = (tags,) if isinstance(tags, str) else tuple(tags)
        return self._deploy(name or self._name, production=production, tags=wished_tags, options=options)

    async def async_create(self, **options: Any) -> DeployedFlow:
        """As `create`, without blocking the event loop."""
        return await in_thread(lambda: self.create(**options))

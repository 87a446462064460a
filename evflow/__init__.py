"""Event-sourced runtime for machine-learning flows.

The public names are loaded at their first use, so that `import evflow` costs next to nothing.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evflow.client.artifact import DataArtifact as DataArtifact
    from evflow.client.flow import Flow as Flow
    from evflow.client.namespaces import default_namespace as default_namespace, get_namespace as get_namespace, namespace as namespace
    from evflow.client.publishing import publish_event as publish_event, publish_event_async as publish_event_async
    from evflow.client.root import Evflow as Evflow
    from evflow.client.run import Run as Run
    from evflow.client.spins import inspect_spin as inspect_spin
    from evflow.client.step import Step as Step
    from evflow.client.task import Task as Task
    from evflow.datatools import S3 as S3
    from evflow.deployments.deployed import DeployedFlow as DeployedFlow
    from evflow.deployments.deployer import Deployer as Deployer
    from evflow.deployments.triggered import TriggeredRun as TriggeredRun
    from evflow.exception import EvflowException as EvflowException, ExceptionWrapper as ExceptionWrapper
    from evflow.flow.configs import Config as Config, ConfigValue as ConfigValue, config_expr as config_expr
    from evflow.flow.current import current as current
    from evflow.flow.decorators.cached import cached as cached
    from evflow.flow.decorators.card import card as card
    from evflow.flow.decorators.catch import catch as catch
    from evflow.flow.decorators.environment import environment as environment
    from evflow.flow.decorators.exit_hook import exit_hook as exit_hook
    from evflow.flow.decorators.limit import concurrency as concurrency, limit as limit
    from evflow.flow.decorators.packages import conda as conda, conda_base as conda_base, pypi as pypi, pypi_base as pypi_base
    from evflow.flow.decorators.parallel import parallel as parallel, pytorch_parallel as pytorch_parallel
    from evflow.flow.decorators.pool import pool as pool
    from evflow.flow.decorators.project import namespaced_event_name as namespaced_event_name, project as project
    from evflow.flow.decorators.remote import batch as batch, kubernetes as kubernetes
    from evflow.flow.decorators.resources import resources as resources
    from evflow.flow.decorators.retry import retry as retry
    from evflow.flow.decorators.schedule import schedule as schedule
    from evflow.flow.decorators.secrets import secrets as secrets
    from evflow.flow.decorators.timeout import timeout as timeout
    from evflow.flow.decorators.trigger import trigger as trigger, trigger_on_finish as trigger_on_finish
    from evflow.flow.flowspec import FlowSpec as FlowSpec
    from evflow.flow.includefile import IncludeFile as IncludeFile
    from evflow.flow.inputs import Inputs as Inputs
    from evflow.flow.parameters import JSONType as JSONType, Parameter as Parameter
    from evflow.flow.parsers import (
        conda_environment_yml_parser as conda_environment_yml_parser,
        pyproject_toml_parser as pyproject_toml_parser,
        requirements_txt_parser as requirements_txt_parser,
        toml_parser as toml_parser,
        yaml_parser as yaml_parser,
    )
    from evflow.flow.steps import step as step
    from evflow.flow.user_decorators import (
        USER_SKIP_STEP as USER_SKIP_STEP,
        FlowMutator as FlowMutator,
        StepMutator as StepMutator,
        UserStepDecorator as UserStepDecorator,
        user_step_decorator as user_step_decorator,
    )
    from evflow.runner.executing import ExecutingRun as ExecutingRun, ExecutingTask as ExecutingTask
    from evflow.runner.notebook import NBDeployer as NBDeployer, NBRunner as NBRunner
    from evflow.runner.runner import Runner as Runner

__version__ = "0.1.0"

__all__ = [
    "S3",
    "USER_SKIP_STEP",
    "Config",
    "ConfigValue",
    "DataArtifact",
    "DeployedFlow",
    "Deployer",
    "Evflow",
    "EvflowException",
    "ExceptionWrapper",
    "ExecutingRun",
    "ExecutingTask",
    "Flow",
    "FlowMutator",
    "FlowSpec",
    "IncludeFile",
    "Inputs",
    "JSONType",
    "NBDeployer",
    "NBRunner",
    "Parameter",
    "Run",
    "Runner",
    "Step",
    "StepMutator",
    "Task",
    "TriggeredRun",
    "UserStepDecorator",
    "batch",
    "cached",
    "card",
    "catch",
    "concurrency",
    "conda",
    "conda_base",
    "conda_environment_yml_parser",
    "config_expr",
    "current",
    "default_namespace",
    "environment",
    "exit_hook",
    "get_namespace",
    "inspect_spin",
    "kubernetes",
    "limit",
    "namespace",
    "namespaced_event_name",
    "parallel",
    "pool",
    "project",
    "publish_event",
    "publish_event_async",
    "pypi",
    "pypi_base",
    "pyproject_toml_parser",
    "pytorch_parallel",
    "requirements_txt_parser",
    "resources",
    "retry",
    "schedule",
    "secrets",
    "step",
    "timeout",
    "toml_parser",
    "trigger",
    "trigger_on_finish",
    "user_step_decorator",
    "yaml_parser",
]

_HOMES = {
    "Config": "evflow.flow.configs",
    "ConfigValue": "evflow.flow.configs",
    "DataArtifact": "evflow.client.artifact",
    "S3": "evflow.datatools",
    "DeployedFlow": "evflow.deployments.deployed",
    "Deployer": "evflow.deployments.deployer",
    "Evflow": "evflow.client.root",
    "EvflowException": "evflow.exception",
    "ExceptionWrapper": "evflow.exception",
    "ExecutingRun": "evflow.runner.executing",
    "ExecutingTask": "evflow.runner.executing",
    "Flow": "evflow.client.flow",
    "FlowMutator": "evflow.flow.user_decorators",
    "FlowSpec": "evflow.flow.flowspec",
    "IncludeFile": "evflow.flow.includefile",
    "Inputs": "evflow.flow.inputs",
    "JSONType": "evflow.flow.parameters",
    "NBDeployer": "evflow.runner.notebook",
    "NBRunner": "evflow.runner.notebook",
    "Parameter": "evflow.flow.parameters",
    "Run": "evflow.client.run",
    "Runner": "evflow.runner.runner",
    "Step": "evflow.client.step",
    "StepMutator": "evflow.flow.user_decorators",
    "Task": "evflow.client.task",
    "TriggeredRun": "evflow.deployments.triggered",
    "batch": "evflow.flow.decorators.remote",
    "cached": "evflow.flow.decorators.cached",
    "USER_SKIP_STEP": "evflow.flow.user_decorators",
    "UserStepDecorator": "evflow.flow.user_decorators",
    "card": "evflow.flow.decorators.card",
    "catch": "evflow.flow.decorators.catch",
    "concurrency": "evflow.flow.decorators.limit",
    "conda": "evflow.flow.decorators.packages",
    "conda_base": "evflow.flow.decorators.packages",
    "conda_environment_yml_parser": "evflow.flow.parsers",
    "config_expr": "evflow.flow.configs",
    "current": "evflow.flow.current",
    "default_namespace": "evflow.client.namespaces",
    "environment": "evflow.flow.decorators.environment",
    "exit_hook": "evflow.flow.decorators.exit_hook",
    "get_namespace": "evflow.client.namespaces",
    "kubernetes": "evflow.flow.decorators.remote",
    "inspect_spin": "evflow.client.spins",
    "limit": "evflow.flow.decorators.limit",
    "namespace": "evflow.client.namespaces",
    "namespaced_event_name": "evflow.flow.decorators.project",
    "parallel": "evflow.flow.decorators.parallel",
    "pool": "evflow.flow.decorators.pool",
    "project": "evflow.flow.decorators.project",
    "publish_event": "evflow.client.publishing",
    "publish_event_async": "evflow.client.publishing",
    "pypi": "evflow.flow.decorators.packages",
    "pypi_base": "evflow.flow.decorators.packages",
    "pyproject_toml_parser": "evflow.flow.parsers",
    "pytorch_parallel": "evflow.flow.decorators.parallel",
    "requirements_txt_parser": "evflow.flow.parsers",
    "resources": "evflow.flow.decorators.resources",
    "retry": "evflow.flow.decorators.retry",
    "schedule": "evflow.flow.decorators.schedule",
    "secrets": "evflow.flow.decorators.secrets",
    "step": "evflow.flow.steps",
    "timeout": "evflow.flow.decorators.timeout",
    "toml_parser": "evflow.flow.parsers",
    "trigger": "evflow.flow.decorators.trigger",
    "trigger_on_finish": "evflow.flow.decorators.trigger",
    "user_step_decorator": "evflow.flow.user_decorators",
    "yaml_parser": "evflow.flow.parsers",
}
"""Public name to the module that defines it."""


def __getattr__(name: str) -> Any:
    from evflow.imports import public

    return public(globals(), _HOMES, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})

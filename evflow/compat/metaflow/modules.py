"""Which names stand in which of Metaflow's modules, and where evflow has them.

A place is `module` for a thing of the same name, or `module:name`. Many are `evflow` itself: a thing that evflow gets later
is there from then on, without a change here. A place that does not exist is a name that evflow has nothing for yet.
"""

from collections.abc import Iterable, Mapping
from typing import Final

Names = Mapping[str, str]


def _of(place: str, names: str) -> dict[str, str]:
    return dict.fromkeys(names.split(), place)


_PLUS: Final = "evflow.compat.metaflow."
_CLIENT: Final = {
    **_of("evflow.client", "DataArtifact Flow Run Step Task default_namespace get_namespace namespace"),
    "Metaflow": "evflow.client:Evflow",
    **_of(_PLUS + "providers", "default_metadata get_metadata metadata"),
    "inspect_spin": "evflow",
}
_CONFIGS: Final = _of("evflow", "Config ConfigValue config_expr")
_PARSERS: Final = _of("evflow", "conda_environment_yml_parser pyproject_toml_parser requirements_txt_parser toml_parser yaml_parser")
_PARAMETERS: Final = {**_of("evflow", "JSONType Parameter"), "JSONTypeClass": "evflow.flow.parameters:JSONType"}
_MULTICORE: Final = _of(_PLUS + "multicore", "MulticoreException parallel_imap_unordered parallel_map")
_PROFILE: Final = {"profile": _PLUS + "multicore"}
_RUNNERS: Final = _of("evflow", "DeployedFlow Deployer NBDeployer NBRunner Runner")
_USER_DECORATORS: Final = _of("evflow", "FlowMutator StepMutator USER_SKIP_STEP UserStepDecorator user_step_decorator")
_ARGO_EVENT: Final = _of(_PLUS + "argo_events", "ArgoEvent ArgoEventException")
_EVENT_NAMES: Final = {"namespaced_event_name": "evflow"}
_S3: Final = {"S3": "evflow"}
_DATATOOLS: Final = {
    **_S3,
    **_of("evflow.datatools", "S3GetObject S3Object S3PutObject"),
    **{
        f"Metaflow{name}": f"evflow.datatools:{name}"
        for name in ["S3AccessDenied", "S3Exception", "S3InvalidObject", "S3InvalidRange", "S3NotFound", "S3URLException"]
    },
}
_MERGING: Final = _of("evflow.exception", "MissingInMergeArtifactsException UnhandledInMergeArtifactsException")
_BASE: Final = {"MetaflowException": "evflow.errors:EvflowError"}
_EXCEPTIONS: Final = {
    **_BASE,
    "MetaflowExceptionWrapper": "evflow.exception:ExceptionWrapper",
    "MetaflowInternalError": "evflow.errors:InternalError",
    "MetaflowInvalidPathspec": "evflow.exception:EvflowInvalidPathspec",
    "MetaflowNamespaceMismatch": "evflow.exception:EvflowNamespaceMismatch",
    "MetaflowNotFound": "evflow.exception:EvflowNotFound",
    "MetaflowTaggingError": "evflow.exception:EvflowTaggingError",
    "InvalidDecoratorAttribute": "evflow.flow.decorators.base:DecoratorInvalid",
    "ParameterFieldFailed": "evflow.flow.parameter_values:ParameterDefaultFailed",
    "ParameterFieldTypeMismatch": "evflow.flow.parameter_values:ParameterFieldTypeMismatch",
    **_of(_PLUS + "errors", "CommandException ExternalCommandFailed MetaflowDataMissing MetaflowUnknownUser"),
    **_MERGING,
}
_DECORATOR_ERRORS: Final = dict.fromkeys(
    (
        "BadFlowDecoratorException",
        "BadStepDecoratorException",
        "DuplicateFlowDecoratorException",
        "DuplicateStepDecoratorException",
        "InvalidDecoratorAttribute",
        "UnknownFlowDecoratorException",
        "UnknownStepDecoratorException",
    ),
    "evflow.flow.decorators.base:DecoratorInvalid",
)
_COMPONENTS: Final = _of(
    "evflow.cards", "Artifact Error EventsTimeline Image JSONViewer Markdown ProgressBar PythonCode Table ValueBox VegaChart YAMLViewer"
)
_CARDS: Final = {
    **_COMPONENTS,
    "MetaflowCardComponent": "evflow.cards:CardComponent",
    **_of("evflow.cards", "BlankCard DefaultCard ErrorCard MetaflowCard PageComponent"),
    "get_cards": _PLUS + "cards",
}
_TRIGGER: Final = {"MetaflowEvent": "evflow.flow.started_by:TriggerEvent", "Trigger": "evflow.flow.started_by:StartedBy"}

_STEP_DECORATORS: Final = "batch card catch conda environment kubernetes parallel pypi pytorch_parallel resources retry secrets timeout"
_FLOW_DECORATORS: Final = "conda_base exit_hook package_sources project pypi_base schedule trigger trigger_on_finish"
_AIRFLOW: Final = "airflow_external_task_sensor airflow_s3_key_sensor"

MODULES: Final[Mapping[str, Names]] = {
    "metaflow": {
        **_of("evflow", "FlowSpec IncludeFile current step"),
        **_PARAMETERS,
        **_CONFIGS,
        **_PARSERS,
        **_of("evflow", _STEP_DECORATORS),
        **_of("evflow", _FLOW_DECORATORS),
        **_of("evflow", _AIRFLOW),
        **_CLIENT,
        **_RUNNERS,
        **_USER_DECORATORS,
        **_EVENT_NAMES,
        **_S3,
        **_MULTICORE,
        **_PROFILE,
        "__version__": _PLUS + "providers:VERSION",
    },
    "metaflow.cards": _CARDS,
    "metaflow.client": _CLIENT,
    "metaflow.client.core": {
        **_CLIENT,
        **_TRIGGER,
        "MetaflowCode": "evflow.client.code:RunCode",
        "MetaflowData": "evflow.client.artifact:TaskData",
        **{name: place for name, place in _EXCEPTIONS.items() if name.startswith("Metaflow")},
    },
    "metaflow.datastore": {},
    "metaflow.datastore.exceptions": dict.fromkeys(
        ("DataException", "UnpicklableArtifactException"), "evflow.store.diagnosis:ArtifactNotSerializable"
    ),
    "metaflow.datatools": _DATATOOLS,
    "metaflow.decorators": {"step": "evflow", **_BASE, **_DECORATOR_ERRORS},
    "metaflow.events": _TRIGGER,
    "metaflow.exception": _EXCEPTIONS,
    "metaflow.flowspec": {
        **_of("evflow", "FlowSpec Inputs"),
        **_BASE,
        "InvalidNextException": "evflow.exception",
        **_MERGING,
    },
    "metaflow.graph": {"FlowGraph": "evflow.flow.graph_view:GraphView"},
    "metaflow.includefile": {"IncludeFile": "evflow", "IncludedFile": _PLUS + "util"},
    "metaflow.integrations": {"ArgoEvent": _PLUS + "argo_events"},
    "metaflow.lint": {"LintWarn": "evflow.flow.checks:FlowInvalid"},
    "metaflow.metaflow_config": _of(
        _PLUS + "settings",
        "BATCH_CONTAINER_IMAGE BATCH_JOB_QUEUE CARD_LOCALROOT CLIENT_CACHE_PATH DATASTORE_SYSROOT_LOCAL DATASTORE_SYSROOT_S3 DATATOOLS_S3ROOT "
        "DEFAULT_DATASTORE DEFAULT_DECOSPECS DEFAULT_ENVIRONMENT DEFAULT_METADATA KUBERNETES_CONTAINER_IMAGE KUBERNETES_NAMESPACE MAX_ATTEMPTS "
        "SERVICE_URL TEMPDIR UI_URL USER",
    ),
    "metaflow.metaflow_current": {"Current": "evflow.flow.current", "current": "evflow.flow.current"},
    "metaflow.metaflow_profile": _PROFILE,
    "metaflow.metaflow_version": {"get_version": _PLUS + "providers"},
    "metaflow.multicore_utils": _MULTICORE,
    "metaflow.parameters": {
        **_PARAMETERS,
        **_BASE,
        "ParameterContext": "evflow.flow.parameter_values",
        "ParameterFieldFailed": _EXCEPTIONS["ParameterFieldFailed"],
        "ParameterFieldTypeMismatch": _EXCEPTIONS["ParameterFieldTypeMismatch"],
    },
    "metaflow.plugins": {**_PARSERS, **_EVENT_NAMES},
    "metaflow.plugins.argo": {},
    "metaflow.plugins.argo.argo_events": _ARGO_EVENT,
    "metaflow.plugins.cards": {},
    "metaflow.plugins.cards.card_client": {"get_cards": _PLUS + "cards", **_of("evflow.client.cards", "Card CardContainer")},
    "metaflow.plugins.cards.card_modules": _of("evflow.cards", "MetaflowCard"),
    "metaflow.plugins.cards.card_modules.basic": {
        **_of("evflow.cards", "BlankCard DefaultCard ErrorCard PageComponent"),
        "MarkdownComponent": "evflow.cards:Markdown",
    },
    "metaflow.plugins.cards.card_modules.card": {
        **_of("evflow.cards", "MetaflowCard"),
        "MetaflowCardComponent": "evflow.cards:CardComponent",
    },
    "metaflow.plugins.cards.card_modules.components": {**_COMPONENTS, "UserComponent": "evflow.cards:CardComponent"},
    "metaflow.plugins.cards.card_modules.test_cards": _of(
        _PLUS + "plain_cards",
        "TestEditableCard TestEditableCard2 TestErrorCard TestImageCard TestJSONComponent TestMockCard TestNonEditableCard TestPathSpecCard "
        "TestRefreshCard TestRefreshComponentCard TestStringComponent TestTimeoutCard _component_values_to_hash",
    ),
    "metaflow.plugins.cards.exception": {
        "CardClassFoundException": "evflow.cards.types:NoSuchCardType",
        "CardNotPresentException": "evflow.cli.card:NoCards",
    },
    "metaflow.plugins.catch_decorator": {"FailureHandledByCatch": "evflow.exception"},
    "metaflow.plugins.datatools": _DATATOOLS,
    "metaflow.plugins.datatools.s3": _DATATOOLS,
    "metaflow.plugins.namespaced_events": _EVENT_NAMES,
    "metaflow.plugins.parsers": _PARSERS,
    "metaflow.plugins.timeout_decorator": {"TimeoutException": "evflow.exception"},
    "metaflow.runner": _RUNNERS,
    "metaflow.runner.deployer": _of("evflow", "DeployedFlow Deployer TriggeredRun"),
    "metaflow.runner.metaflow_runner": _of("evflow", "ExecutingRun ExecutingTask Runner"),
    "metaflow.runner.nbdeploy": {"NBDeployer": "evflow"},
    "metaflow.runner.nbrun": {"NBRunner": "evflow"},
    "metaflow.tagging_util": {
        "MAX_TAG_SIZE": "evflow.core.tags:MOST_TAG_CHARS",
        "MAX_USER_TAG_SET_SIZE": "evflow.core.tags:MOST_TAGS",
    },
    "metaflow.tuple_util": {"ForeachFrame": "evflow.flow.foreach_frame"},
    "metaflow.unbounded_foreach": {"UnboundedForeachInput": "evflow"},
    "metaflow.user_configs": _CONFIGS,
    "metaflow.user_configs.config_parameters": _CONFIGS,
    "metaflow.user_decorators": {},
    "metaflow.user_decorators.mutable_flow": {"MutableFlow": "evflow.flow.mutators"},
    "metaflow.user_decorators.mutable_step": {"MutableStep": "evflow.flow.mutators"},
    "metaflow.user_decorators.user_flow_decorator": {"FlowMutator": "evflow"},
    "metaflow.user_decorators.user_step_decorator": {name: place for name, place in _USER_DECORATORS.items() if name != "FlowMutator"},
    "metaflow.util": {
        **_of(_PLUS + "settings", "get_username resolve_identity"),
        **_of(_PLUS + "util", "is_stringish to_bytes to_unicode"),
    },
}
"""Module to its public names. Each module above one of them is there, too."""


def surface() -> Iterable[str]:
    """Every name of `metaflow` itself that public code uses, for the page and its test."""
    return (name for name in MODULES["metaflow"] if not name.startswith("_"))

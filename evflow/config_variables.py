"""Variables `EVFLOW_…` that no setting has: most are mistyped settings, which nothing else would tell.

Not all are. Parameters and configurations of flows have variables of their own, so has what evflow tells its processes and containers, and
Kubernetes gives each pod variables of the services of its namespace, which may well be called `evflow`. Whoever adds such a variable adds it
here; `tests/unit/test_config_variables.py` finds those that are forgotten.
"""

import os
import re
from collections.abc import Iterator
from typing import Final

from evflow.config import SETTINGS
from evflow.errors import did_you_mean

PREFIX: Final = "EVFLOW_"

_OF_FLOWS: Final = ("EVFLOW_RUN_", "EVFLOW_FLOW_CONFIG")
"""`evflow.flow.parameter_values.PREFIX`, and `FILES_VARIABLE` and `VALUES_VARIABLE` of `evflow.flow.config_values`."""
_OF_TESTS: Final = ("EVFLOW_TEST_", "EVFLOW_PYTHON")
"""Of the repository's own tests, and of its Makefile."""
_INTERNAL: Final = frozenset(
    {
        "EVFLOW_ATTEMPT",
        "EVFLOW_ATTEMPT_LOCKS",
        "EVFLOW_BOOTSTRAP",
        "EVFLOW_FRAMEWORK",
        "EVFLOW_INSTALL",
        "EVFLOW_KUBERNETES_NODE_IP",
        "EVFLOW_KUBERNETES_NODE_NAME",
        "EVFLOW_KUBERNETES_POD_ID",
        "EVFLOW_KUBERNETES_POD_IP",
        "EVFLOW_KUBERNETES_POD_NAME",
        "EVFLOW_KUBERNETES_POD_NAMESPACE",
        "EVFLOW_KUBERNETES_SERVICE_ACCOUNT_NAME",
        "EVFLOW_NODES",
        "EVFLOW_ORDER",
        "EVFLOW_ORDERS_AT",
        "EVFLOW_ORDER_AT",
        "EVFLOW_REQUIREMENTS",
        "EVFLOW_SUPPORT",
        "EVFLOW_VERSION",
    }
)
"""What evflow tells attempts, their interpreters and their containers."""
_OF_SERVICES: Final = re.compile(r"EVFLOW_(?:\w+_)?(?:SERVICE_HOST|SERVICE_PORT(?:_\w+)?|PORT_\d+_(?:TCP|UDP|SCTP)(?:_\w+)?)")
_ADDRESS_OF_A_SERVICE: Final = re.compile(r"(?:tcp|udp|sctp)://")
"""What a service's shortest variable holds. The documentation of Kubernetes, "Accessing the Service", has the names."""


def known(name: str, value: str = "") -> bool:
    """Whether a variable is a setting's, or one of those that are none and belong to evflow all the same."""
    return (
        name.removeprefix(PREFIX).lower() in SETTINGS
        or name in _INTERNAL
        or name.startswith((*_OF_FLOWS, *_OF_TESTS))
        or _OF_SERVICES.fullmatch(name) is not None
        or _ADDRESS_OF_A_SERVICE.match(value) is not None
    )


def unknown_variables() -> Iterator[tuple[str, str]]:
    """Variables of this process that begin as settings' do, have a value, and are none: `(name, " Did you mean …?" or "")`, by name."""
    settings = [setting.env for setting in SETTINGS.values()]
    for name, value in sorted(os.environ.items()):
        if name.startswith(PREFIX) and value and not known(name, value):
            yield name, did_you_mean(name, settings)

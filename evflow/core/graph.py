"""The graph of a flow and the policies of its steps, as the log records them.

The graph is the union of all `self.next` calls in the source. It serves `show`, the checks, the picture
and two questions of the decisions: does a step take inputs, and what is its policy. The way that a run
takes through it is what `self.next` said at run time.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from evflow.core.values import declared, field, fits, value

LOCAL = "local"
"""The executor of steps that say nothing: processes of the owner's machine."""
POOL_PREFIX = "pool:"
"""How the name of an executor begins that is a pool of workers."""
PLATFORMS: Final = MappingProxyType({"batch": "AWS Batch", "kubernetes": "Kubernetes"})
"""Executors that are platforms of containers, and what people call them."""
TAKES_GANGS: Final = frozenset((LOCAL, "kubernetes"))
"""Executors on which the nodes of a gang can run: they begin together there, and learn the address of node 0."""
DEFAULT_POOL = "default"
_POOL_CHARS = 100


def pool_of(executor: str) -> str | None:
    """The pool that an executor's name names; None of an executor that is none."""
    return executor.removeprefix(POOL_PREFIX) if executor.startswith(POOL_PREFIX) else None


def is_pool_name(name: str) -> bool:
    """Whether a pool can be called so: its name stands in keys, and in patterns of keys."""
    plain = name.replace("-", "a").replace("_", "a").replace(".", "a")
    return name.isascii() and plain.isalnum() and name[0].isalnum() and len(name) <= _POOL_CHARS


@value
class Policy:
    """What the decorators of a step ask of the scheduler.

    Attributes:
        retry_times: Attempts after the first one.
        retry_explicit: `@retry` stands on the step: `times=0` then forbids even uncounted attempts.
        retry_delay_us: The wait before the first retry.
        retry_backoff: Factor of the wait from one retry to the next.
        retry_max_delay_us: The wait's bound; 0 for none.
        timeout_us: The limit of one attempt; 0 for none.
        catch: `@catch` stands on the step.
        catch_var: The artifact that takes the exception, or None.
        executor: `local`, or the name of another executor: `pool:gpu` for the workers of a pool.
        cpu: Declared cores; 0 if none are declared.
        memory_mb: Declared memory; 0 if none is declared.
        gpu: Declared accelerators.
        limits: Names that at most so many attempts hold at once, of whatever run.
        reuse: How many attempts of such steps a process may serve, one after the other; 0 and 1 for one.
        cards: How many cards are made of each attempt, which is told its times for them.
        parallel: Its tasks are the nodes of a gang, and run at the same time.
        asked: What the step asks of an executor that is no worker of ours (`batch`, `kubernetes`): the decorator's fields, and what `@resources` adds.
    """

    retry_times: int = 0
    retry_explicit: bool = False
    retry_delay_us: int = 0
    retry_backoff: float = 1.0
    retry_max_delay_us: int = 0
    timeout_us: int = 0
    catch: bool = False
    catch_var: str | None = None
    executor: str = LOCAL
    cpu: float = 0
    memory_mb: int = 0
    gpu: int = 0
    limits: Mapping[str, int] = field(default_factory=dict[str, int])
    reuse: int = 0
    cards: int = 0
    parallel: bool = False
    asked: Mapping[str, Any] = field(default_factory=dict[str, Any])


@value
class Node:
    """A step.

    Attributes:
        kind: `linear`, `split`, `foreach`, `parallel`, `switch`, `join` (takes inputs and goes on linearly), `end`;
            `conditional` where the source has `self.next` calls of more than one kind.
        out: The steps that its `self.next` calls name, in the order of the source.
        takes_inputs: The method has the argument `inputs`.
        foreach: The variable of a foreach, or None.
        condition: The variable of a switch, or None.
        cases: Case to step of a switch, each case as text.
        doc: The first paragraph of its docstring.
        line: Line of its `def`.
        file: File of its `def`.
        decorators: As the user wrote them, for people (`@retry(times=3)`).
    """

    name: str
    kind: str
    out: tuple[str, ...] = ()
    takes_inputs: bool = False
    foreach: str | None = None
    condition: str | None = None
    cases: Mapping[str, str] = field(default_factory=dict[str, str])
    doc: str = ""
    line: int = 0
    file: str = ""
    decorators: tuple[str, ...] = ()
    policy: Policy = Policy()


@value
class Graph:
    """All steps of a flow by name, in the order of the source."""

    nodes: Mapping[str, Node]
    start: str = "start"
    end: str = "end"
    doc: str = ""

    def __getitem__(self, step: str) -> Node:
        return self.nodes[step]

    def __contains__(self, step: object) -> bool:
        return step in self.nodes

    @property
    def executors(self) -> frozenset[str]:
        """Where its steps are to run."""
        return frozenset(node.policy.executor for node in self.nodes.values())

    def parents(self, step: str) -> tuple[str, ...]:
        """The steps that may lead to `step`, in the order of the source."""
        return tuple(node.name for node in self.nodes.values() if step in node.out)

    def join_of(self, step: str) -> str | None:
        """The join of the splits that a step makes, where the source leaves only one possible; else None."""
        found: set[str] = set()
        seen: set[tuple[str, int]] = set()
        # A step, and how many splits inside of the one that is looked at are open there.
        ahead = [(target, 0) for target in self.nodes[step].out if target in self.nodes]
        while ahead:
            name, depth = ahead.pop()
            if (name, depth) in seen or depth > len(self.nodes):
                continue
            seen.add((name, depth))
            node = self.nodes[name]
            if node.takes_inputs and not depth:
                found.add(name)
                continue
            inside = depth - node.takes_inputs + (node.kind in ("split", "foreach", "parallel"))
            ahead.extend((target, inside) for target in node.out if target in self.nodes)
        return found.pop() if len(found) == 1 else None

    def to_plain(self) -> dict[str, Any]:
        """As an event holds it: values that differ from their defaults only, to stay small."""
        return {
            "start": self.start,
            "end": self.end,
            "doc": self.doc,
            "steps": [_to_plain(node) for node in self.nodes.values()],
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> "Graph":
        """The inverse of `to_plain`; fields of later versions are dropped.

        Raises:
            ValueError: It is no graph: something is missing, of another type, or leads nowhere.
        """
        try:
            nodes = [_node(step) for step in plain["steps"]]
            graph = cls({node.name: node for node in nodes}, plain["start"], plain["end"], plain.get("doc", ""))
        except (LookupError, TypeError, AttributeError) as error:
            raise ValueError(f"not a graph ({type(error).__name__}: {error})") from error
        if graph.start not in graph or graph.end not in graph:
            raise ValueError(f"a graph without its start '{graph.start}' or its end '{graph.end}'")
        return graph


def _to_plain(node: Node) -> dict[str, Any]:
    plain = {"name": node.name, "kind": node.kind, **_other_than(node, Node(node.name, node.kind))}
    if "cases" in plain:
        plain["cases"] = dict(node.cases)
    if "policy" in plain:
        plain["policy"] = _other_than(node.policy, Policy())
    return plain


def _other_than(one: object, default: object) -> dict[str, Any]:
    """The fields in which two values of a class differ, as the first one has them."""
    return {name: getattr(one, name) for name in declared(type(one)) if getattr(one, name) != getattr(default, name)}


_NODE_FIELDS = {name: kind for name, kind in declared(Node).items() if name != "policy"}
_POLICY_FIELDS = declared(Policy)


def _node(plain: Mapping[str, Any]) -> Node:
    known = _known(plain, _NODE_FIELDS)
    return Node(**known, policy=Policy(**_known(plain.get("policy", {}), _POLICY_FIELDS)))


def _known(plain: Mapping[str, Any], declared: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that this version knows; lists, as JSON has them, as the tuples that they were."""
    known: dict[str, Any] = {}
    for name in declared.keys() & plain.keys():
        value = tuple(plain[name]) if isinstance(plain[name], list) else plain[name]
        if not fits(value, declared[name]):
            raise TypeError(f"{name} is {type(value).__name__}")
        known[name] = value
    return known

"""What calls are known to do, by their dotted names."""

import ast
from collections.abc import Iterator
from typing import Final

from evflow.lint.source import Source, within

_TABLES: Final = frozenset(
    {
        "geopandas.read_file", "numpy.fromfile", "numpy.genfromtxt", "numpy.load", "numpy.loadtxt",
        "pyarrow.csv.read_csv", "pyarrow.feather.read_table", "pyarrow.parquet.read_table", "xarray.open_dataset",
    }
)  # fmt: skip
_MODELS: Final = frozenset({"joblib.load", "pickle.load", "torch.load"})
_OPENS: Final = frozenset(
    {
        "bz2.open", "codecs.open", "gzip.open", "io.open", "lzma.open", "open", "pathlib.Path().open", "pathlib.Path().read_bytes",
        "pathlib.Path().read_text", "smart_open.open", "tarfile.open", "zipfile.ZipFile", "h5py.File",
    }
)  # fmt: skip
_NETWORK: Final = frozenset(
    {
        "datasets.load_dataset", "huggingface_hub.hf_hub_download", "huggingface_hub.snapshot_download", "nltk.download", "openml.datasets.get_dataset",
        "psycopg.connect", "psycopg2.connect", "pymysql.connect", "socket.create_connection", "snowflake.connector.connect", "spacy.load",
        "torch.hub.load", "transformers.pipeline", "urllib.request.urlopen", "urllib.request.urlretrieve",
    }
)  # fmt: skip
_PROCESSES: Final = frozenset(
    {"os.popen", "os.system", "subprocess.Popen", "subprocess.call", "subprocess.check_call", "subprocess.check_output", "subprocess.run"}
)
_VERBS: Final = frozenset({"delete", "get", "head", "patch", "post", "put", "request", "stream"})
_TRAINING: Final = frozenset({"fit", "fit_predict", "fit_transform", "partial_fit"})
_CLOCKS: Final = frozenset(
    {
        "datetime.date.today", "datetime.datetime.now", "datetime.datetime.today", "datetime.datetime.utcnow", "os.getpid", "os.urandom",
        "pandas.Timestamp.now", "pandas.Timestamp.today", "secrets.token_bytes", "secrets.token_hex", "secrets.token_urlsafe",
        "tempfile.mkdtemp", "tempfile.mktemp", "time.monotonic", "time.perf_counter", "time.time", "time.time_ns",
        "time.strftime", "uuid.uuid1", "uuid.uuid4", "datetime.datetime.now().strftime", "datetime.datetime.now().isoformat",
    }
)  # fmt: skip
UNKEPT: Final = {
    "asyncio": {"create_task"},
    "boto3": {"Session", "client", "resource"},
    "concurrent.futures": {"ProcessPoolExecutor", "ThreadPoolExecutor"},
    "csv": {"DictWriter", "reader", "writer"},
    "duckdb": {"connect"},
    "logging": {"FileHandler", "StreamHandler"},
    "multiprocessing": {"Event", "Lock", "Manager", "Pool", "Process", "Queue", "RLock", "Semaphore"},
    "psycopg": {"connect"},
    "psycopg2": {"connect"},
    "pymysql": {"connect"},
    "redis": {"ConnectionPool", "Redis", "StrictRedis", "from_url"},
    "snowflake.connector": {"connect"},
    "socket": {"create_connection", "create_server", "socket"},
    "sqlalchemy": {"create_engine"},
    "sqlite3": {"connect"},
    "subprocess": {"Popen"},
    "tempfile": {"NamedTemporaryFile", "TemporaryFile"},
    "threading": {"Barrier", "BoundedSemaphore", "Condition", "Event", "Lock", "RLock", "Semaphore", "Thread", "Timer", "local"},
}
"""What cannot be pickled, by module. Locks of asyncio can, so they are not here."""
_FILES: Final = frozenset(
    {"bz2.open", "codecs.open", "gzip.open", "io.open", "lzma.open", "open", "pathlib.Path().open", "h5py.File", "zipfile.ZipFile"}
)


def reads_table(name: str) -> bool:
    """Whether a call loads a table or an array."""
    return name in _TABLES or name.startswith(("dask.dataframe.read_", "pandas.read_", "polars.read_", "polars.scan_"))


def reads_data(name: str) -> bool:
    """Whether a call loads a table, an array, or a model, which is small more often."""
    return reads_table(name) or name in _MODELS or name.endswith(".from_pretrained")


def work(source: Source, call: ast.Call) -> str:
    """What a call does that takes its time: `reads data`, `opens a file`, …; empty where it is not known to."""
    name = source.name(call.func)
    module, _, last = name.rpartition(".")
    if reads_data(name):
        return "reads data"
    if name in _OPENS:
        return "reads a file"
    if name in _NETWORK or (module in {"httpx", "requests"} and last in _VERBS) or name.startswith("sklearn.datasets.fetch_"):
        return "asks the network"
    if name in _PROCESSES:
        return "runs a program"
    if name == "time.sleep":
        return "waits"
    if module and last in _TRAINING and (call.args or call.keywords):
        return "trains a model"
    return ""


def works_inside(source: Source, function: ast.AST, seen: frozenset[str] = frozenset()) -> Iterator[tuple[ast.Call, str]]:
    """The calls in a function that take their time, those in functions of the file that it calls included."""
    for statement in getattr(function, "body", []):
        for node in within(statement):
            if not isinstance(node, ast.Call):
                continue
            what = work(source, node)
            if what:
                yield node, what
            elif isinstance(node.func, ast.Name) and node.func.id in source.functions and node.func.id not in seen:
                yield from works_inside(source, source.functions[node.func.id], seen | {node.func.id})


def by_chance(source: Source, node: ast.AST) -> str:
    """The call in an expression whose value is another one in each process; empty where none is known."""
    for one in within(node):
        if isinstance(one, ast.Call):
            name = source.name(one.func)
            if name in _CLOCKS or (_draws(name, one) and not _is_seeded(source)):
                return name
    return ""


def _draws(name: str, call: ast.Call) -> bool:
    module, _, last = name.rpartition(".")
    if module not in {"random", "numpy.random"} or last in {"seed", "setstate", "set_state"}:
        return False
    return not (last in {"Random", "RandomState", "default_rng"} and (call.args or call.keywords))


def _is_seeded(source: Source) -> bool:
    return any(isinstance(one, ast.Call) and source.name(one.func) in {"random.seed", "numpy.random.seed"} for one in ast.walk(source.tree))


def unkept(source: Source, call: ast.Call) -> str:
    """What a call makes that cannot be an artifact; empty where it is not known to."""
    name = source.name(call.func)
    module, _, last = name.rpartition(".")
    if name in _FILES:
        return "an open file"
    if last in UNKEPT.get(module, ()):
        return f"what {name} gives"
    return ""

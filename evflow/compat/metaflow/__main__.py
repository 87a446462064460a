"""`python -m evflow.compat.metaflow flow.py COMMAND`: run a flow's file that says `import metaflow`, as `python flow.py COMMAND` would."""

import os
import sys
from types import CodeType, ModuleType, TracebackType

from evflow.compat.metaflow import install
from evflow.errors import EvflowError
from evflow.imports import framework_view, set_user_folder

_USAGE = """Usage: python -m evflow.compat.metaflow FLOW.py [OPTIONS] COMMAND [ARGUMENTS]

Run a flow written for Metaflow with evflow, as it is: `import metaflow` means evflow in it.
Everything after the file is what `python FLOW.py` takes; `--help` there lists it.
"""
_OK, _WRONG = 0, 2


def main(arguments: list[str]) -> int:
    """Run the file; a flow at its foot ends the process itself."""
    if not arguments or arguments[0] in {"-h", "--help"}:
        (sys.stdout if arguments else sys.stderr).write(_USAGE)
        return _OK if arguments else _WRONG
    if arguments[0].startswith("-"):
        sys.stderr.write(f"Error: the flow's file comes first, and '{arguments[0]}' behind it.\n\n{_USAGE}")
        return _WRONG
    file = os.path.abspath(arguments[0])  # noqa: PTH100 - pathlib is a heavy import
    try:
        with framework_view():
            from evflow.flow import invocation
            from evflow.flow.loading import compiled

            code = compiled(file)
            install()
            invocation.start_with(invocation.THROUGH_MODULE)
            set_user_folder(os.path.dirname(file))  # noqa: PTH120 - as above
    except EvflowError as error:
        sys.stderr.write(f"Error: {error}\n")
        return _WRONG
    sys.argv[:] = arguments
    run(code, file)
    return _OK


def run(code: CodeType, file: str) -> None:
    """Execute the file as `__main__`, its folder first on the path, as Python does with a script."""
    module = ModuleType("__main__")
    module.__file__ = file
    module.__dict__.update(__builtins__=__builtins__, __cached__=None, __annotations__={})
    folder = os.path.dirname(os.path.realpath(file))  # noqa: PTH120
    if sys.flags.safe_path:
        sys.path.insert(0, folder)
    else:
        sys.path[0] = folder  # in the place of the folder of now, which -m has put there
    sys.modules["__main__"] = module
    before = sys.excepthook

    def show(kind: type[BaseException], value: BaseException, traceback: TracebackType | None) -> None:
        while traceback is not None and traceback.tb_frame.f_code is not code:
            traceback = traceback.tb_next  # what stands above the file is ours
        before(kind, value.with_traceback(traceback), traceback)

    sys.excepthook = show
    exec(code, module.__dict__)  # noqa: S102 - it is the user's own program


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

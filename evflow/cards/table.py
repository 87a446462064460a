"""Tables of texts, numbers and other components."""

from collections.abc import Iterable, Sequence
from typing import Any, Final, Self

from evflow.cards.component import CardComponent, escape, problem, shown

HEAD_ROWS: Final = 10
"""Rows of a data frame that are shown where it is truncated."""
HEAD_COLUMNS: Final = 40
_DIGITS: Final = 6


class Table(CardComponent):
    """A table.

    Args:
        data: Rows of cells: texts, numbers, None, or components.
        headers: The columns' names.
        disable_updates: Of a live card: it is drawn once, and `update` changes nothing.
    """

    def __init__(
        self, data: Iterable[Iterable[Any]] | None = None, headers: Iterable[Any] | None = None, disable_updates: bool = False
    ) -> None:
        self._fixed = False
        self._note = ""
        self._row_names = False
        self.update(data, headers)
        self._fixed = disable_updates

    def update(self, data: Iterable[Iterable[Any]] | None = None, headers: Iterable[Any] | None = None) -> None:
        """Show other rows; headers that are not given stay."""
        if self._fixed:
            return
        self._why: str | BaseException = ""
        try:
            if headers is not None or not hasattr(self, "_headers"):
                self._headers: list[Any] = []
                self._headers = [*headers] if headers is not None else []
            self._rows = [list(row) for row in data] if data is not None else []
        except (TypeError, ValueError) as error:  # no rows of cells; a data frame says that its truth is ambiguous
            self._rows, self._why = [], error

    @classmethod
    def from_dataframe(cls, dataframe: Any = None, truncate: bool = True) -> Self:
        """The table of a data frame of pandas or polars.

        Args:
            dataframe: The data frame.
            truncate: Show the first rows and columns only, and say how many there are.
        """
        made = cls()
        try:
            columns, names, rows, indexed = _of_frame(dataframe, truncate)
            total = len(dataframe)
            wide = len(dataframe.columns)
        except Exception as error:  # noqa: BLE001 - of a library of the user's; the card says it
            made._why = error
            return made
        made._row_names = indexed
        made.update([[name, *row] for name, row in zip(names, rows, strict=True)] if indexed else rows, columns)
        parts: list[str] = []
        if len(rows) < total:
            parts.append(f"the first {len(rows):,} of {total:,} rows")
        if len(columns) - indexed < wide:
            parts.append(f"{len(columns) - indexed:,} of {wide:,} columns")
        made._note = " and ".join(parts).capitalize()
        return made

    def render(self) -> str:
        """See `CardComponent`."""
        if self._why:
            return problem("A table takes rows of cells.", self._why)
        if not self._rows and not self._headers:
            return ""
        head = "".join(f'<th scope="col"{_side(self._column(at))}>{_cell(name)}</th>' for at, name in enumerate(self._headers))
        rows = "".join(f"<tr>{self._row(row)}</tr>" for row in self._rows)
        head = f"<thead><tr>{head}</tr></thead>" if head else ""
        caption = f"<caption>{escape(self._note)}</caption>" if self._note else ""
        # A region that scrolls has to be reachable by the keyboard.
        return (
            f'<div class="scroll" role="region" tabindex="0" aria-label="Table"><table>{caption}{head}<tbody>{rows}</tbody></table></div>'
        )

    def _row(self, row: Sequence[Any]) -> str:
        cells: list[str] = []
        for at, cell in enumerate(row):
            if self._row_names and at == 0:
                cells.append(f'<th scope="row">{_cell(cell)}</th>')
            else:
                cells.append(f"<td{_side([cell])}>{_cell(cell)}</td>")
        return "".join(cells)

    def _column(self, at: int) -> list[Any]:
        return [row[at] for row in self._rows[:HEAD_ROWS] if at < len(row) and not (self._row_names and at == 0)]


def _of_frame(frame: Any, truncate: bool) -> tuple[list[Any], list[Any], list[list[Any]], bool]:
    """Columns, names of rows, rows, and whether rows have names."""
    some = frame.head(HEAD_ROWS) if truncate else frame
    columns = list(frame.columns)[: HEAD_COLUMNS if truncate else None]
    some = some[columns] if len(columns) < len(frame.columns) else some
    if hasattr(some, "itertuples"):  # pandas; two columns may have one name, and a column may be called `Index`
        tuples = list(some.itertuples(index=True, name=None))
        return ["", *columns], [row[0] for row in tuples], [list(row[1:]) for row in tuples], True
    rows = [list(row) for row in some.rows()]
    return columns, [], rows, False


def _cell(value: Any) -> str:
    if isinstance(value, CardComponent):
        return shown(value)
    if value is None:
        return '<span class="none" aria-label="nothing">\u2013</span>'
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, float):
        short, whole = f"{value:.{_DIGITS}g}", repr(value)
        return escape(whole) if len(whole) <= len(short) else f'<span title="{escape(whole)}">{escape(short)}</span>'
    return escape(value)


def _side(cells: Sequence[Any]) -> str:
    """Numbers stand on the right, under each other."""
    return ' class="number"' if cells and all(is_number(cell) or cell is None for cell in cells) and any(map(is_number, cells)) else ""


def is_number(value: object) -> bool:
    """Whether a value is a number, those of numpy included."""
    if isinstance(value, bool | str | CardComponent):
        return False
    return isinstance(value, int | float) or (hasattr(value, "__float__") and type(value).__module__ in ("numpy", "decimal", "fractions"))

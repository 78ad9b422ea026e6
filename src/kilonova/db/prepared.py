"""Statements made ready once, for the SQLite connections of this process.

Between a statement object and SQLite stand some 60 microseconds of general machinery
(cache keys, execution contexts, result metadata) around a call of 10. A statement that
comes a second time, because it was built once at its module's level, is taken apart
instead: its SQL, which parameters go where and how their types change them, and how its
rows are made. Everything that is not plain goes the general way.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import sqlalchemy as sa
import sqlalchemy.exc

Process = Callable[[Any], Any]
ROWS = "kilonova_rows"
"""Execution option of a SELECT: the named tuple that its rows become, column by column, where it is prepared."""
_PLAIN = (sa.Select, sa.CompoundSelect, sa.Insert, sa.Update, sa.Delete)


class Rows:
    """What callers use of SQLAlchemy's results, over rows that are all here."""

    __slots__ = ("_rows", "inserted_primary_key", "rowcount")

    def __init__(
        self, rows: list[Any], rowcount: int = -1, inserted_primary_key: tuple[Any, ...] | None = None
    ) -> None:
        self._rows = rows
        self.rowcount = rowcount
        self.inserted_primary_key = inserted_primary_key

    def __iter__(self) -> Iterator[Any]:
        return iter(self._rows)

    def all(self) -> list[Any]:
        return self._rows

    fetchall = all

    def first(self) -> Any:
        return self._rows[0] if self._rows else None

    fetchone = first

    def one_or_none(self) -> Any:
        if len(self._rows) > 1:
            raise sqlalchemy.exc.MultipleResultsFound("Multiple rows were found when one or none was required")
        return self.first()

    def one(self) -> Any:
        if not self._rows:
            raise sqlalchemy.exc.NoResultFound("No row was found when one was required")
        return self.one_or_none()

    def scalar(self) -> Any:
        return self._rows[0][0] if self._rows else None

    def scalar_one(self) -> Any:
        return self.one()[0]

    def scalar_one_or_none(self) -> Any:
        row = self.one_or_none()
        return None if row is None else row[0]

    def scalars(self) -> Rows:
        return Rows([row[0] for row in self._rows], self.rowcount)

    def mappings(self) -> Rows:
        return Rows([row._mapping for row in self._rows], self.rowcount)


def _row_type(names: Sequence[str]) -> Callable[[Sequence[Any]], Any]:
    base = collections.namedtuple("Row", names, rename=True)  # type: ignore[misc]  # names known only here
    row = type("Row", (base,), {"__slots__": (), "_mapping": property(base._asdict)})
    return row._make  # type: ignore[attr-defined,no-any-return]


class Prepared:
    """One statement with the names of its parameters fixed."""

    __slots__ = ("_columns", "_defaults", "_make", "_parameters", "_primary_key", "sql")

    def __init__(
        self,
        sql: str,
        parameters: list[tuple[str, Process | None]],
        defaults: dict[str, Any],
        columns: list[tuple[str, Process | None]] | None,
        primary_key: bool,
        row: Callable[[Sequence[Any]], Any] | None = None,
    ) -> None:
        self.sql = sql
        self._parameters = parameters
        self._defaults = defaults
        self._columns = None
        self._make = None
        self._primary_key = primary_key
        if columns is not None:
            self._make = row or _row_type([name for name, _ in columns])
            self._columns = [(place, process) for place, (_, process) in enumerate(columns) if process is not None]

    def bind(self, given: Mapping[str, Any]) -> list[Any]:
        """The values in the statement's order. Raises KeyError when one is missing."""
        if self._defaults:
            given = {**self._defaults, **given}
        return [given[name] if process is None else process(given[name]) for name, process in self._parameters]

    def result(self, rows: list[Any], rowcount: int, lastrowid: int | None) -> Rows:
        make = self._make
        if make is None:
            return Rows([], rowcount, (lastrowid,) if self._primary_key else None)
        if not self._columns:
            return Rows(list(map(make, rows)))
        made = []
        for row in rows:
            values = list(row)
            for place, process in self._columns:
                values[place] = process(values[place])
            made.append(make(values))
        return Rows(made)


class Statements:
    """The prepared statements of one dialect. They live as long as the statement objects they were made of."""

    def __init__(self, dialect: sa.Dialect) -> None:
        self._dialect = dialect
        self._known: WeakKeyDictionary[Any, dict[tuple[str, ...], Prepared | None]] = WeakKeyDictionary()

    def get(self, statement: Any, parameters: Mapping[str, Any]) -> Prepared | None:
        """None for a statement that is not plain, or that is seen for the first time."""
        if not isinstance(statement, _PLAIN):
            return None
        known = self._known.get(statement)
        if known is None:
            self._known[statement] = {}
            return None
        names = tuple(parameters)
        if names not in known:
            known[names] = self._prepare(statement, names)
        return known[names]

    def _prepare(self, statement: Any, names: tuple[str, ...]) -> Prepared | None:
        try:
            compiled = statement.compile(dialect=self._dialect, column_keys=list(names))
            fixed = compiled.literal_execute_params
            if fixed and not any(bind.key in names for bind in fixed) and not compiled.post_compile_params:
                # Constants that the database takes only as literals become part of the text.
                compiled = statement.compile(
                    dialect=self._dialect, column_keys=list(names), compile_kwargs={"render_postcompile": True}
                )
            elif fixed:
                return None
        except sqlalchemy.exc.CompileError:
            return None
        if (
            compiled.post_compile_params
            or compiled.escaped_bind_names
            or compiled.effective_returning
            or (compiled.isinsert and compiled.insert_prefetch)
            or (compiled.isupdate and compiled.update_prefetch)
            or any(bind.callable is not None for bind in compiled.binds.values())
        ):
            return None
        parameters, defaults = [], {}
        for name in compiled.positiontup or ():
            bind = compiled.binds[name]
            parameters.append((name, bind.type.dialect_impl(self._dialect).bind_processor(self._dialect)))
            if not bind.required:
                defaults[name] = bind.value
        columns: list[tuple[str, Process | None]] | None = None
        if isinstance(statement, sa.Select | sa.CompoundSelect):
            columns = [
                (str(column.name), column.type.dialect_impl(self._dialect).result_processor(self._dialect, None))
                for column in statement.selected_columns
            ]
        # A statement may say what its rows are to be, lest they be made twice.
        wanted = statement.get_execution_options().get(ROWS)
        fits = wanted is not None and columns is not None and len(wanted._fields) == len(columns)
        return Prepared(
            compiled.string, parameters, defaults, columns, compiled.isinsert, wanted._make if fits else None
        )

"""Column types and SQL expressions that differ between SQLite, MariaDB and PostgreSQL."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

# SQLite counts rows up by itself only in a column declared INTEGER.
Id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
DateTime = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
LongText = sa.Text().with_variant(mysql.LONGTEXT(), "mysql", "mariadb")
Uuid = sa.String(36)
Name = sa.String(255)
# Where 'a' and 'A' are two; MariaDB's usual collations take them for one.
Tag = sa.String(80).with_variant(mysql.VARCHAR(80, collation="utf8mb4_bin"), "mysql", "mariadb")
ExactName = sa.String(255).with_variant(mysql.VARCHAR(255, collation="utf8mb4_bin"), "mysql", "mariadb")
Json = sa.JSON(none_as_null=True)


class database_seconds(FunctionElement[float]):
    """The database server's clock, seconds since 1970 with a fraction.

    Leases are compared on this one clock, so that hosts' clocks need not agree.
    """

    type = sa.Double()
    inherit_cache = True


@compiles(database_seconds, "sqlite")
def _sqlite(element: Any, compiler: SQLCompiler, **kw: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(database_seconds, "mysql")
@compiles(database_seconds, "mariadb")
def _mysql(element: Any, compiler: SQLCompiler, **kw: Any) -> str:
    return "UNIX_TIMESTAMP(SYSDATE(6))"


@compiles(database_seconds, "postgresql")
def _postgresql(element: Any, compiler: SQLCompiler, **kw: Any) -> str:
    return "extract(epoch from clock_timestamp())"


class joined_by_comma(FunctionElement[str]):
    """The strings of a group in one, in no order."""

    type = sa.Text()
    inherit_cache = True


@compiles(joined_by_comma)
def _group_concat(element: Any, compiler: SQLCompiler, **kw: Any) -> str:
    return f"group_concat({compiler.process(element.clauses, **kw)})"


@compiles(joined_by_comma, "postgresql")
def _string_agg(element: Any, compiler: SQLCompiler, **kw: Any) -> str:
    return f"string_agg({compiler.process(element.clauses, **kw)}, ',')"


class json_text(FunctionElement[str]):
    """A column of JSON as the text that is stored."""

    type = sa.Text()
    inherit_cache = True


@compiles(json_text)
def _as_it_is(element: Any, compiler: SQLCompiler, **kw: Any) -> str:
    return str(compiler.process(element.clauses, **kw))


@compiles(json_text, "postgresql")
def _cast(element: Any, compiler: SQLCompiler, **kw: Any) -> str:
    # The driver decodes what the server says is JSON.
    return f"CAST({compiler.process(element.clauses, **kw)} AS TEXT)"

"""PostgreSQL databases that are emptied after a test, which is cheaper than to drop and to create
them.
"""

import contextlib
from typing import Any

import psycopg
import sqlalchemy as sa

from helpers import servers

_SCHEMA = "'sqlbuffer'::regnamespace"

FINGERPRINT = f"""
SELECT md5(string_agg(part, chr(10) ORDER BY part)) FROM (
    SELECT format('relation %s %s %s %s %s %s %s', relname, relkind, relowner, relacl, reloptions,
        relrowsecurity, relpersistence)
    FROM pg_class WHERE relnamespace = {_SCHEMA}
    UNION ALL
    SELECT format('column %s %s %s %s %s %s %s', attrelid::regclass, attnum, attname, atttypid,
        attnotnull, attacl, attisdropped)
    FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
    WHERE relnamespace = {_SCHEMA} AND attnum > 0
    UNION ALL
    SELECT format('constraint %s', pg_get_constraintdef(oid)) FROM pg_constraint
    WHERE connamespace = {_SCHEMA}
    UNION ALL
    SELECT format('index %s', pg_get_indexdef(indexrelid)) FROM pg_index
    JOIN pg_class ON pg_class.oid = indexrelid WHERE relnamespace = {_SCHEMA}
    UNION ALL
    SELECT format('schema %s %s %s', nspname, nspowner, nspacl) FROM pg_namespace
    WHERE nspname !~ '^pg_(toast_)?temp'
    UNION ALL
    SELECT format('outside %s', oid::regclass) FROM pg_class WHERE oid >= 16384
    AND relnamespace <> {_SCHEMA} AND relnamespace <> 'pg_toast'::regnamespace
    UNION ALL
    SELECT format('function %s', oid::regprocedure) FROM pg_proc WHERE oid >= 16384
    UNION ALL
    SELECT format('trigger %s %s', tgrelid::regclass, tgenabled) FROM pg_trigger
    WHERE NOT tgisinternal
    UNION ALL
    SELECT format('statistics %s', starelid::regclass) FROM pg_statistic
    JOIN pg_class ON pg_class.oid = starelid WHERE relnamespace = {_SCHEMA}
    UNION ALL
    SELECT format('setting %s %s', setrole, setconfig) FROM pg_db_role_setting
    WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())
    UNION ALL
    SELECT format('database %s %s %s %s', datdba, datacl, datconnlimit, encoding) FROM pg_database
    WHERE datname = current_database()
    UNION ALL
    SELECT format('rights of the future %s %s', defaclrole, defaclacl) FROM pg_default_acl
    UNION ALL
    SELECT format('extension %s', extname) FROM pg_extension
    UNION ALL
    SELECT format('default %s %s', adrelid::regclass, pg_get_expr(adbin, adrelid)) FROM pg_attrdef
    UNION ALL
    SELECT format('policy %s', polname) FROM pg_policy
    UNION ALL
    SELECT format('rule %s %s', ev_class::regclass, rulename) FROM pg_rewrite WHERE oid >= 16384
    UNION ALL
    SELECT format('type %s', oid::regtype) FROM pg_type WHERE oid >= 16384 AND typtype IN ('d', 'e')
    UNION ALL
    SELECT format('large object %s', oid) FROM pg_largeobject_metadata
    UNION ALL
    SELECT format('version %s', version_num) FROM sqlbuffer.sqlbuffer_version
) AS parts (part)
"""
"""What a test may have changed beyond rows: such a database is dropped."""

_FEW_BYTES = 32768
"""To delete the rows of a table up to this size is cheaper than to give it new files."""

EMPTY = f"""
DO $$
DECLARE named text;
BEGIN
    SET LOCAL session_replication_role = replica;  -- no foreign keys are checked
    FOR named IN SELECT oid::regclass::text FROM pg_class
        WHERE relnamespace = {_SCHEMA} AND relkind = 'r' AND relname <> 'sqlbuffer_version'
        AND pg_relation_size(oid) BETWEEN 1 AND {_FEW_BYTES}
    LOOP
        EXECUTE 'DELETE FROM ' || named;
    END LOOP;
    SELECT string_agg(oid::regclass::text, ', ') INTO named FROM pg_class
    WHERE relnamespace = {_SCHEMA} AND relkind IN ('r', 'p') AND relname <> 'sqlbuffer_version'
    AND pg_relation_size(oid) > {_FEW_BYTES};
    IF named IS NOT NULL THEN EXECUTE 'TRUNCATE ' || named || ' CASCADE'; END IF;
    FOR named IN SELECT oid::regclass::text FROM pg_class
        WHERE relnamespace = {_SCHEMA} AND relkind = 'S'
    LOOP
        PERFORM setval(named, 1, false);
    END LOOP;
END $$
"""


END_OTHERS = """
SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
"""

APPLICATION = "recycling"
"""The name under which connections that stay open are listed."""

_RESTING = 3
"""Databases that wait to be emptied. A server process ends a moment after its client, and to wait
for its end takes 100 ms at the least.
"""


class Recycled:
    """Databases of one server, each used by one test at a time.

    One connection to each stays open: a new one would read the catalogs again, which takes longer
    than to empty the tables.

    Args:
        server_url: URL of the server.
        template: Name of the database that holds the schema, and nothing else.
    """

    def __init__(self, server_url: str, template: str) -> None:
        self._server_url, self._template = server_url, template
        self._used: list[str] = []
        self._expected: str | None = None
        self._server = psycopg.connect(server_url, autocommit=True)
        self._connections: dict[str, psycopg.Connection] = {}

    def take(self) -> str:
        """Return the URL of a database that holds the schema, and nothing else."""
        while len(self._used) >= _RESTING:
            name = self._used.pop(0)
            if self.is_emptied(name):
                return servers.url_of_database(self._server_url, name)
            if name in self._connections:
                self._connections.pop(name).close()
            self._server.execute(f"DROP DATABASE {name} WITH (FORCE)")
        return servers.new_database(self._server_url, self._template)

    def give_back(self, url: str) -> list[Any]:
        """Leave a database to others; return the transactions that were left open in it."""
        name = str(sa.make_url(url).database)
        self._used.append(name)
        return self._server.execute(
            "SELECT query FROM pg_stat_activity "
            "WHERE datname = %s AND state LIKE 'idle in transaction%%'",
            [name],
        ).fetchall()

    def is_emptied(self, name: str) -> bool:
        """Empty a database; return False if it has to be dropped."""
        found = None
        with contextlib.suppress(psycopg.Error):
            connection = self._connection_to(name)
            connection.execute(END_OTHERS)
            connection.execute(EMPTY)
            (found,) = connection.execute(FINGERPRINT).fetchone() or (None,)
        if self._expected is None:
            self._expected = self._fingerprint_of_template()
        return found is not None and found == self._expected

    def _connection_to(self, name: str) -> psycopg.Connection:
        if name not in self._connections:
            url = servers.url_of_database(self._server_url, name)
            self._connections[name] = psycopg.connect(
                url, autocommit=True, application_name=APPLICATION
            )
        return self._connections[name]

    def _fingerprint_of_template(self) -> str:
        url = servers.url_of_database(self._server_url, self._template)
        with psycopg.connect(url, autocommit=True) as connection:
            (found,) = connection.execute(FINGERPRINT).fetchone() or ("",)
        return str(found)

    def close(self) -> None:
        """Drop the databases."""
        for connection in self._connections.values():
            connection.close()
        for name in self._used:
            self._server.execute(f"DROP DATABASE {name} WITH (FORCE)")
        self._server.close()

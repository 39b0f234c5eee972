"""Database URLs, parsed so that no message shows a password."""

from __future__ import annotations

import sqlalchemy as sa

from sqlbuffer.errors import InvalidArgument

WAY_OUT = "use sqlite:///FILE or postgresql://USER:PASSWORD@HOST/DATABASE"
_SECRETS = ("sslpassword", "oauth_client_secret", "scram_client_key", "scram_server_key")


def read_url(given: str | sa.URL) -> sa.URL:
    """Parse a database URL; a password in its query becomes its password.

    Raises:
        InvalidArgument: If the URL is invalid or ambiguous. The message has no part of the URL.
    """
    if isinstance(given, str):
        _require_options(given)
        user, at, rest = given.partition("://")[2].partition("@")
        if at and "@" in rest.partition("?")[0] and "/" not in user.partition(":")[0]:
            # Parsed as it is, part of the password would become the host, and be shown.
            raise InvalidArgument(
                "the database URL has more than one @: write those of user and password as %40 "
                "(/ as %2F, : as %3A)."
            )
    try:
        url = sa.make_url(given)
    except (sa.exc.ArgumentError, ValueError):  # a ValueError for a port that is no number
        # Without the cause, which may quote the URL.
        raise InvalidArgument(f"cannot read the database URL: {WAY_OUT}.") from None
    if secrets := [name for name in _SECRETS if name in url.query]:
        raise InvalidArgument(
            f"{secrets[0]} would be shown as part of the URL: put it into pg_service.conf."
        )
    if "password" in url.query:
        password = url.query["password"]
        url = url.set(password=password if isinstance(password, str) else password[-1])
        url = url.difference_update_query(["password"])
    return url


def _require_options(given: str) -> None:
    """Refuse options that SQLAlchemy would ignore. The message quotes none: one may be secret."""
    for option in given.partition("?")[2].split("&"):
        name, _, value = option.partition("=")
        if option and not (name and value):
            raise InvalidArgument(
                "the text after the ? of the database URL is not an option NAME=VALUE: leave it "
                "out; give a file whose name has a ? as a path alone, without sqlite:///FILE."
            )

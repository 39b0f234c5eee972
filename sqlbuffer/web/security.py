"""Who may read the pages: checks of each request before any page sees it.

A page on loopback needs no token, so that a site on the internet must not reach it through the
browser of its user: `Host` must be a name of loopback (a DNS name that is pointed at 127.0.0.1 is
another one), and `Origin`, if there is one, must be the page's own. Elsewhere each request brings a
token: in a cookie, or as `Authorization: Bearer` for programs.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import re
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response

from sqlbuffer._messages import printable, summary
from sqlbuffer.errors import InvalidArgument

log = logging.getLogger(__name__)

LOOPBACK = ("127.0.0.1", "localhost", "[::1]", "::1")
"""Hosts that no other machine reaches."""

SHORTEST_TOKEN = 16
"""Least number of characters of a token."""

LONGEST_FORM = 100_000
"""Most bytes of a form."""

COOKIE_S = 30 * 86_400

_HOST = re.compile(r"([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")
"""A header `Host`: a name or an address, and perhaps a port."""

POLICY = (
    "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
    "object-src 'none'"
)
CHARTS_POLICY = f"{POLICY}; style-src 'self' 'unsafe-inline'; img-src 'self' data:"
"""The policy of a page with charts: Plotly sets styles, and tests a format of images."""

HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
"""Headers of every answer that has no other ones."""


def as_token(text: str | None) -> str | None:
    """Return a token without surrounding blanks.

    Raises:
        InvalidArgument: If it can be guessed, or no header can hold it.
    """
    if text is None:
        return None
    token = text.strip()
    if len(token) < SHORTEST_TOKEN or not (token.isascii() and token.isprintable()):
        raise InvalidArgument(
            f"the token must have at least {SHORTEST_TOKEN} printable ASCII characters, and this "
            f"one has {len(token)} characters: make one with `openssl rand -hex 16`."
        )
    return token


class Guard:
    """ASGI application that lets only the requests through that may read.

    Args:
        app: The pages.
        token: The token that each request must bring; None for none.
        hosts: Names that a request may have in `Host`; None for any name.
    """

    def __init__(self, app: Any, *, token: str | None, hosts: frozenset[str] | None) -> None:
        self._app = app
        self._token = token
        self._hosts = hosts
        self._proof = "" if token is None else _proof(token)
        self._cookie = f"sqlbuffer_{self._proof[:8]}"

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return

        has_begun = False

        async def send_with_headers(message: Any) -> None:
            nonlocal has_begun
            if message["type"] == "http.response.start":
                has_begun = True
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        request = Request(scope, receive)
        try:
            answer = self._refusal(request) or await self._admission(request) or self._app
            await answer(scope, receive, send_with_headers)
        except HTTPException as exc:
            refused = PlainTextResponse(f"{exc.detail}\n", exc.status_code)
            await refused(scope, receive, send_with_headers)
        except Exception as exc:  # the server would log a traceback, which may quote anything
            log.error("%s: %s", printable(path_of(request)), summary(exc))
            if not has_begun:
                failed = PlainTextResponse("The page failed: the log has the reason.\n", 500)
                await failed(scope, receive, send_with_headers)

    def _refusal(self, request: Request) -> Response | None:
        """Return the answer to a request that no user of the pages has made."""
        headers = request.headers
        host = ",".join(headers.getlist("host")).lower()
        if self._hosts is not None and name_of(host) not in self._hosts:
            return PlainTextResponse(
                f"Host {host[:80]!r} is none of the names of this server: open the address that "
                "`sqlbuffer serve` has printed.\n",
                421,
            )
        if not _HOST.fullmatch(host):
            return PlainTextResponse("Host must be a name, or a name and a port.\n", 400)
        if not _is_own(headers.getlist("origin"), host) or _is_foreign(headers):
            return PlainTextResponse("Another site may not use this page.\n", 403)
        if request.method not in ("GET", "HEAD", "POST"):
            return PlainTextResponse("These pages only read.\n", 405)
        return None

    async def _admission(self, request: Request) -> Response | None:
        """Return the answer to a request without the token, and to one that brings it."""
        if self._token is None:
            return None
        path = path_of(request)
        is_login = path == "/login" and request.method == "POST"
        if is_login:
            return await self._login(request)
        given = request.query_params.get("token")
        if given is not None:
            if not self._is_token(given):
                return self._ask(request)
            rest = [pair for pair in parse_qsl(query_of(request)) if pair[0] != "token"]
            return self._welcome(request, _with_query(path, rest))
        if self._has_proof(request) or path.startswith("/static/"):
            return None
        return self._ask(request)

    async def _login(self, request: Request) -> Response:
        form = await form_of(request)
        to = _own_path(form.get("next", "/"))
        if not self._is_token(form.get("token", "")):
            return self._ask(request, to)
        return self._welcome(request, to)

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.strip().encode(), str(self._token).encode())

    def _has_proof(self, request: Request) -> bool:
        kind, _, bearer = request.headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer":
            return self._is_token(bearer)
        cookie = request.cookies.get(self._cookie, "")
        return hmac.compare_digest(cookie.encode(), self._proof.encode())

    def _welcome(self, request: Request, to: str) -> Response:
        answer = RedirectResponse(to, 303)
        is_secure = request.scope["scheme"] == "https"
        answer.set_cookie(
            self._cookie,
            self._proof,
            max_age=COOKIE_S,
            httponly=True,
            samesite="strict",
            secure=is_secure,
        )
        return answer

    def _ask(self, request: Request, to: str = "/") -> Response:
        """Ask for the token, for a page: people by a form, programs by a sentence."""
        from sqlbuffer.web.rendering import page  # its templates are needed here alone

        path = path_of(request)
        if "text/html" not in request.headers.get("accept", "") or path.endswith(".json"):
            text = "this server needs its token, as a header Authorization: Bearer TOKEN"
            return Response(json.dumps({"error": text}) + "\n", 401, media_type="application/json")
        was_wrong = path == "/login" or "token" in request.query_params
        if not was_wrong:
            to = _with_query(path, parse_qsl(query_of(request)))
        return page("login.html", {"next": to, "was_wrong": was_wrong}, status=401)


def path_of(request: Request) -> str:
    """Return the path that chooses the page: `request.url` may be made of the header `Host`."""
    return str(request.scope["path"])


def query_of(request: Request) -> str:
    """Return the query as it was sent."""
    return bytes(request.scope["query_string"]).decode("latin-1")


def _proof(token: str) -> str:
    """Return what the cookie holds: it proves the token, and does not tell it."""
    return hmac.new(token.encode(), b"cookie of sqlbuffer serve", hashlib.sha256).hexdigest()


def name_of(host: str) -> str:
    """Return the name in a header `Host`, without the port."""
    return host.partition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0]


def _is_own(origins: list[str], host: str) -> bool:
    """Return whether no other site has sent the request: a browser names the site in `Origin`."""
    try:
        parts = [urlsplit(each) for each in origins]
    except ValueError:
        return False
    return all(each.scheme in ("http", "https") and each.netloc.lower() == host for each in parts)


def _is_foreign(headers: Headers) -> bool:
    """Return whether a page of another site embeds this one, or sends a form to it."""
    is_link = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") in (
        None,
        "document",
    )
    return headers.get("sec-fetch-site") in ("cross-site", "same-site") and not is_link


def _with_query(path: str, pairs: list[tuple[str, str]]) -> str:
    return _own_path(quote(path) + (f"?{urlencode(pairs)}" if pairs else ""))


def _own_path(to: str) -> str:
    """Return a path of these pages; "/" for one that a browser takes for another site."""
    is_own = to.startswith("/") and to[1:2] not in ("/", "\\") and to.isprintable()
    return to if is_own and to.isascii() else "/"


async def form_of(request: Request) -> dict[str, str]:
    """Return the fields of a form.

    Raises:
        HTTPException: If it is too long.
    """
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > LONGEST_FORM:
            raise HTTPException(413, f"the form has more than {LONGEST_FORM:,} bytes: shorten it.")
    return dict(parse_qsl(body.decode(errors="replace"), keep_blank_values=True))

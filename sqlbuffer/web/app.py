"""The ASGI application: routes, the JSON twin of each page, and errors as pages."""

from __future__ import annotations

import contextlib
import json
import pathlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import anyio.to_thread
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

import sqlbuffer
from sqlbuffer._messages import shown
from sqlbuffer.errors import BufferNotFound, DatabaseUnavailable, InvalidArgument, SqlBufferError
from sqlbuffer.plots.palette import dark_of
from sqlbuffer.plots.registry import KINDS
from sqlbuffer.web import charts, pages, pictures
from sqlbuffer.web.prometheus import exposition
from sqlbuffer.web.rendering import as_json, compile_templates, json_answer, page
from sqlbuffer.web.security import CHARTS_POLICY, Guard, form_of, path_of, query_of
from sqlbuffer.web.source import Source
from sqlbuffer.web.tables import TABLES

READERS = 4
"""Requests that read at one time: as many as there are connections to the database."""

SQL_READERS = 2
"""Statements of users that run at one time, in threads that no other page needs."""

JSON = ".json"

_STATUS = {BufferNotFound: 404, InvalidArgument: 400, DatabaseUnavailable: 503}


def create_app(
    source: Source, *, token: str | None = None, hosts: frozenset[str] | None = None
) -> Any:
    """Return the application.

    Args:
        source: The database.
        token: The token that each request must bring; None for none.
        hosts: Names that a request may have in `Host`; None for any name.
    """
    return Guard(_pages(source), token=token, hosts=hosts)


def _pages(source: Source) -> Starlette:
    buffer = "/b/{buffer}"

    @contextlib.asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[dict[str, Any]]:
        anyio.to_thread.current_default_thread_limiter().total_tokens = READERS
        await run_in_threadpool(_prepare)
        yield {"sql_readers": anyio.CapacityLimiter(SQL_READERS)}
        source.database.close()

    routes = [
        Route("/index.json", _json(source, pages.index)),
        Route("/", _html(source, pages.index)),
        *_twins(source, "/compare", pages.compare),
        Route("/compare/charts/best.json", _handler(source, _compared_chart)),
        Route(f"{buffer}/charts/{{kind}}.json", _handler(source, _chart)),
        *_twins(source, f"{buffer}/charts", pages.more_charts),
        Route(f"{buffer}/sample/{{number}}/picture", _handler(source, _picture)),
        *_twins(source, f"{buffer}/sample/{{number}}", pages.sample),
        *_twins(source, f"{buffer}/jobs", pages.jobs),
        *_twins(source, f"{buffer}/metrics", pages.history),
        Route(f"{buffer}/sql{JSON}", _sql(source, is_json=True), methods=["GET", "POST"]),
        Route(f"{buffer}/sql", _sql(source, is_json=False), methods=["GET", "POST"]),
        Route(f"{buffer}/{{table}}{JSON}", _json(source, _table_page)),
        Route(f"{buffer}/{{table}}", _html(source, _table_page)),
        *_twins(source, buffer, pages.first_screen),
        Route("/static/plotly.js", _file(plotly_script())),
        Route("/static/charts.js", _file(charts.script())),
        Mount("/static", _Static(directory=pathlib.Path(__file__).parent / "static")),
    ]
    if source.has_metrics:
        routes.append(Route("/metrics", _handler(source, _metrics)))
    errors: Any = {HTTPException: _http_error, SqlBufferError: _known_error, Exception: _any_error}
    return Starlette(routes=routes, exception_handlers=errors, lifespan=lifespan)


def _prepare() -> None:
    """Do what the first page would wait for: a quarter of a second."""
    compile_templates()
    pictures.drawable(["C"])  # imports rdkit


# -- pages and their twins ------------------------------------------------------------------------

_KEPT = {"cache-control": "max-age=3600"}


class _Static(StaticFiles):
    """Our own files, which a browser may keep for an hour: their URLs have the release."""

    def file_response(self, *args: Any, **options: Any) -> Response:
        """Return a file."""
        answer = super().file_response(*args, **options)
        answer.headers.update(_KEPT)
        return answer


Find = Callable[[Source, Request], pages.View]


def _twins(source: Source, path: str, find: Find) -> list[Route]:
    return [Route(path + JSON, _json(source, find)), Route(path, _html(source, find))]


def _html(source: Source, find: Find) -> Callable[[Request], Response]:
    return lambda request: _as_page(source, request, find(source, request))


def _json(source: Source, find: Find) -> Callable[[Request], Response]:
    return lambda request: as_json(find(source, request).data)


def _handler(
    source: Source, answer: Callable[[Source, Request], Response]
) -> Callable[[Request], Response]:
    return lambda request: answer(source, request)


def _as_page(source: Source, request: Request, view: pages.View) -> Response:
    path = path_of(request)
    query = f"?{query_of(request)}" if query_of(request) else ""
    common = {
        "database": source.database.url,
        "release": sqlbuffer.__version__,
        "json_url": (f"{path}{JSON}" if path != "/" else f"/index{JSON}") + query,
        "here": path,
        "dark_colors": json.dumps(dark_of()),
        "sql": "",
    }
    answer = page(view.template, {**common, **view.more, **view.data})
    if view.template in charts.TEMPLATES:
        answer.headers["content-security-policy"] = CHARTS_POLICY
    return answer


def _table_page(source: Source, request: Request) -> pages.View:
    if request.path_params["table"] not in TABLES:
        raise HTTPException(404, f"there is no page {shown(path_of(request))}.")
    return pages.table(source, request)


def _sql(source: Source, *, is_json: bool) -> Any:
    async def answer(request: Request) -> Response:
        form = await form_of(request) if request.method == "POST" else {}

        def read() -> Response:
            view = pages.sql(source, request, form)
            return as_json(view.data) if is_json else _as_page(source, request, view)

        return await anyio.to_thread.run_sync(read, limiter=request.state.sql_readers)

    return answer


# -- parts of pages -------------------------------------------------------------------------------


def _theme(request: Request) -> str:
    return "dark" if request.query_params.get("theme") == "dark" else "light"


def _chart(source: Source, request: Request) -> Response:
    kind = request.path_params["kind"]
    if kind not in KINDS:
        raise HTTPException(404, f"there is no chart {shown(kind)}: {', '.join(KINDS)} are there.")
    return json_answer(charts.chart(source, kind, pages.buffer_of(source, request)))


def _compared_chart(source: Source, request: Request) -> Response:
    buffers = [source.buffer(request.query_params.get(each, "")) for each in ("a", "b")]
    return json_answer(charts.compared(source, buffers))


def _picture(source: Source, request: Request) -> Response:
    number = pages.number_of(request)
    buffer, is_dark = pages.buffer_of(source, request), _theme(request) == "dark"
    found = buffer.read(pictures.draw, number, is_dark=is_dark)
    if found is None:
        raise HTTPException(404, f"sample {number} has no picture.")
    return Response(
        found[0], media_type=found[1], headers={"cache-control": "private, max-age=600"}
    )


def _file(path: pathlib.Path) -> Callable[[Request], Response]:
    return lambda _: FileResponse(path, headers=_KEPT)


def _metrics(source: Source, _: Request) -> Response:
    return PlainTextResponse(exposition(source), media_type="text/plain; version=0.0.4")


def plotly_script() -> pathlib.Path:
    """Return the script of Plotly that its package has."""
    import plotly

    return pathlib.Path(plotly.__file__).parent / "package_data" / "plotly.min.js"


# -- errors ---------------------------------------------------------------------------------------


def _error(request: Request, status: int, text: str) -> Response:
    path = path_of(request)
    if path.endswith(JSON) or path == "/metrics":
        return as_json({"error": text}, status=status)
    return page("error.html", {"status": status, "text": text}, status=status)


def _http_error(request: Request, exc: HTTPException) -> Response:
    text = (
        exc.detail if exc.detail != "Not Found" else f"there is no page {shown(path_of(request))}."
    )
    return _error(request, exc.status_code, text)


def _known_error(request: Request, exc: SqlBufferError) -> Response:
    status = next((code for kind, code in _STATUS.items() if isinstance(exc, kind)), 500)
    return _error(request, status, str(exc))


def _any_error(request: Request, exc: Exception) -> Response:
    """Answer an error of which a page tells nothing: its text may quote anything.

    The guard logs it.
    """
    return _error(request, 500, f"the page failed ({type(exc).__name__}): the log has the reason.")

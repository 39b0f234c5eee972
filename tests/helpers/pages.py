"""A database for the pages of `sqlbuffer serve`: a run with all states, and hostile texts."""

import contextlib
import itertools
import pathlib
from collections.abc import Iterator

import numpy as np
import pytest

from helpers.cleanup import wait_for_disposal
from sqlbuffer.store import open_store

RUN = "docking <run>"
HOSTILE = "../'\"><img src=x onerror=alert(1)>~2F?#&%2e"
TOKEN = "correct horse battery"

_PARTS = (
    *("<script>alert(1)</script>", "<img src=x onerror=alert(2)>", "\"'><svg onload=alert(3)>"),
    *(
        "</pre></td></table><h1>",
        "{{ 7 * 7 }}",
        "{% raw %}",
        "</title><script>",
        "javascript:alert(4)",
    ),
    *("<!--", "-->", "]]>", "&lt;b&gt;", "\u202egnp.exe", "\x1b[31mred", "' OR '1'='1", "a\nb\tc"),
    *(
        "<b onmouseover=alert(5)>",
        "%3Cscript%3E",
        "<style>*{display:none}</style>",
        "<a href=//evil>",
    ),
)
TEXTS = [f"{a}{b}" for a, b in itertools.product(_PARTS, _PARTS[:10])]
"""200 texts that mean something to a browser, a template or a terminal."""


@contextlib.contextmanager
def database(kind: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """Yield the URL of a database that the tests of a module share."""
    if kind == "sqlite":
        folder: pathlib.Path = request.getfixturevalue("tmp_path_factory").mktemp("pages")
        (folder / "pages.db").write_bytes(request.getfixturevalue("sqlite_template"))
        yield f"sqlite:///{folder / 'pages.db'}"
        wait_for_disposal()
        return
    databases = request.getfixturevalue("recycled")
    url = databases.take()
    yield url
    wait_for_disposal()
    databases.give_back(url)


def fill(url: str) -> None:
    """Store a run with samples in every state, and a buffer of hostile texts."""
    with open_store(url, name=RUN, direction="minimize", budget=40) as store:
        store.add([f"C{'C' * i}O" for i in range(30)], source="library")
        store.add([f"N{'C' * i}" for i in range(30)], source="mutation")
        store.score(lambda samples: [float(len(each)) for each in samples])
        store.save_predictor(
            b"x", rows_trained=9, rows_held_out=3, metrics={"rank_correlation": 0.5}
        )
        for _ in range(2):
            batch = store.sample(10)
            rewards: list[float | None] = [-float(len(each)) for each in batch.samples]
            errors: list[str | None] = [None] * 10
            rewards[0], errors[0] = None, "ValueError: no pose"
            batch.report(batch.ids, rewards, errors=errors)
        store.log_metrics(0, {"rewards": -3.0})
        store.sample(4, lease_s=1e6).detach()
        store.add_one(np.arange(64, dtype=np.uint8).reshape(8, 8), source="image")
    with open_store(url, name=HOSTILE, weighting="uniform") as store:
        store.add(
            TEXTS,
            source="<script>alert('source')</script>",
            meta=[{"note": each} for each in TEXTS],
        )
        batch = store.sample(20)
        errors = [f"<script>alert({i})</script>: bad" if i % 2 else None for i in range(20)]
        rewards = [None if error else float(i) for i, error in enumerate(errors)]
        batch.report(batch.ids, rewards, errors=errors)

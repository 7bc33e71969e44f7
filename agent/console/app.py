"""The console: the API and the pages as one application."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import cast

from fastapi import FastAPI

from agent.analysis.scenario import Scenario
from agent.config import Settings
from agent.console.api import api
from agent.console.following import Viewers
from agent.console.gate import Gate, is_loopback
from agent.console.keys import MAX_CACHED, Keys
from agent.console.pages import add_pages
from agent.console.problems import add_problems
from agent.console.store import Store
from persistence.database import Database

__all__ = ["create_app"]

CONNECTIONS = 8  # threads that wait for one longer than the pool lets them are told to come back


def create_app(settings: Settings, scenarios: Mapping[str, Scenario] | None = None) -> FastAPI:
    """Make the application. It opens the database when it starts, and closes it when it ends.

    While it runs, `app.state` has the `store`, the `keys` and the `viewers`.

    Args:
        scenarios: Name the kinds of statements; without one, a kind is shown by its id.

    Raises:
        ConfigError: `database.url` is none that we know.
    """
    database = Database.of(settings, connections=CONNECTIONS)

    @asynccontextmanager
    async def running(app: FastAPI) -> AsyncIterator[None]:
        keys = Keys(database)
        app.state.store = Store(database, settings, scenarios or {})
        app.state.keys = keys
        app.state.used_keys = asyncio.Queue[str](MAX_CACHED)  # who is noted already is not put in again
        app.state.viewers = Viewers(app.state.store)
        noting = asyncio.create_task(keys.note_uses(app.state.used_keys), name="console.note_uses")
        try:
            yield
        finally:
            app.state.viewers.close()
            noting.cancel()
            await asyncio.gather(noting, return_exceptions=True)
            await asyncio.to_thread(database.interrupt)  # and nobody waits for one that hangs

    app = FastAPI(
        title="Roomscribe",
        version="1",
        summary="Sessions, what was said in them, and what was made of them.",
        lifespan=running,
        openapi_url=None,  # `api` serves it to who has a key
        redirect_slashes=False,
    )

    def store() -> Store:
        return cast(Store, app.state.store)

    @app.get("/healthz", include_in_schema=False)
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    add_problems(app)
    app.include_router(api(store))
    add_pages(app, store)
    app.add_middleware(Gate, is_local=is_loopback(settings.console.host))
    return app

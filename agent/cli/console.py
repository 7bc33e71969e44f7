"""`roomscribe console`: the pages and the API."""

import typer

__all__ = ["console"]


def console(context: typer.Context) -> None:
    """Serve the pages and the API.

    Until SIGTERM or Ctrl-C. `roomscribe keys create` makes the key that both want.
    """
    import asyncio

    from agent.analyst.scenarios import load_scenarios
    from agent.config import load_settings
    from agent.console.serve import serve
    from agent.telemetry.logs import configure_logs

    settings = load_settings(context.obj)
    configure_logs(settings.log.level, settings.log.format)
    asyncio.run(serve(settings, load_scenarios(settings.analysis.scenarios_dir)))

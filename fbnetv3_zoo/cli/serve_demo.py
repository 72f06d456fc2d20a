"""``fbnetv3 serve-demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .output import flush, say


def serve_demo(
    folder: Annotated[Path, typer.Argument(help="A folder written by `fbnetv3 export web`.")],
    port: Annotated[int, typer.Option(help="The port; 0 for any free one.")] = 8000,
    host: Annotated[
        str, typer.Option(help="The address to listen on; other addresses make the page reachable from the network.")
    ] = "127.0.0.1",
    open_browser: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
) -> None:
    """Serve a page of `fbnetv3 export web` on this machine until Ctrl-C.

    Example: fbnetv3 serve-demo page --open
    """
    from fbnetv3_zoo.export.web.server import page_server

    server = page_server(folder, host=host, port=port)
    say(f"{server.address} (Ctrl-C ends)")
    flush()
    if open_browser:
        import webbrowser

        webbrowser.open(server.address)
    try:
        server.run()
    except KeyboardInterrupt:
        say("ended")

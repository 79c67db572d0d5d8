"""Serves the page on this machine."""

import threading

import gradio as gr
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fqgan_jax.app.page import STYLE
from fqgan_jax.errors import UserError
from fqgan_jax.pictures import report

LARGEST_FILE = "20mb"
# The page may ask this server for anything, and nobody else.
POLICY = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'"
)


class OwnContentOnly:
    """ASGI middleware: tells browsers to ask no other server for anything."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Adds the policy to every answer."""

        async def send_with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", POLICY.encode())]
            await send(message)

        await self.app(scope, receive, send_with_policy)


def serve(page: gr.Blocks, *, host: str, port: int) -> None:
    """Serves a page until the process is interrupted.

    Raises:
      UserError: the address is in use, or not one of this machine.
    """
    try:
        _, address, _ = page.queue(max_size=32).launch(
            server_name=host,
            server_port=port,
            share=False,
            quiet=True,
            prevent_thread_lock=True,
            max_file_size=LARGEST_FILE,
            ssr_mode=False,
            enable_monitoring=False,
            footer_links=[],
            theme=gr.themes.Default(primary_hue="blue", font=["system-ui", "sans-serif"], font_mono=["monospace"]),
            css=STYLE + report.STYLE,
            app_kwargs={"middleware": [Middleware(OwnContentOnly)]},
        )
    except OSError as error:
        raise UserError(f"The page cannot be served on {host}:{port} ({error}): choose another --port.") from error
    print(f"Open {address} in a browser; Ctrl-C ends.", flush=True)
    try:
        threading.Event().wait()
    finally:
        page.close(verbose=False)

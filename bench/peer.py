"""The bare peer of the API: Starlette on uvicorn with the same TLS, answering as many bytes as asked for.

`python -m bench.peer PORT CERTIFICATE`. It parses no JSON, checks nobody and keeps nothing: what it gives
is the ceiling of this machine with this client, this TLS and this web server.
"""

from __future__ import annotations

import sys
from functools import cache

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route


@cache
def _body(size: int) -> bytes:
    return b'{"data":"' + b"x" * max(0, size - 11) + b'"}'


async def _answer(request: Request) -> Response:
    await request.body()
    return Response(_body(int(request.path_params["size"])), media_type="application/json")


def main(port: int, certificate: str) -> None:
    """Serve until killed."""
    app = Starlette(routes=[Route("/bytes/{size:int}", _answer, methods=["GET", "POST", "PATCH"])])
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=port,
        loop="asyncio",
        http="httptools",
        ws="none",
        lifespan="off",
        access_log=False,
        timeout_keep_alive=600,
        log_level="warning",
        ssl_certfile=certificate,
        ssl_keyfile=certificate,
    )


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])

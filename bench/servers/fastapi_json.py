"""10 KiB of JSON from FastAPI, served by uvicorn and httptools.

Each request builds a list of model objects. FastAPI makes the body of them as it does by default: pydantic validates
and serializes what the handler returned, because its type is annotated.
"""

from __future__ import annotations

import socket

from fastapi import FastAPI
from pydantic import BaseModel

from bench.servers.serving import run_server
from bench.servers.uvicorn_plain import make_server

ITEMS = 106  # of 97 bytes each: 10 KiB


class Item(BaseModel):
    """One line of an order."""

    number: int
    name: str
    price: float
    tags: list[str]
    in_stock: bool


application = FastAPI()


@application.get("/")
async def items() -> list[Item]:
    """ITEMS items, made anew for each request."""
    return [
        Item(number=1000 + i, name=f"item number {i:04}", price=i + 0.25, tags=["small", "round"], in_stock=True)
        for i in range(ITEMS)
    ]


async def serve(listener: socket.socket) -> None:
    """Serve for ever."""
    await make_server(application).serve(sockets=[listener])


if __name__ == "__main__":
    run_server(serve)

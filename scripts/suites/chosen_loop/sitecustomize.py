"""On the path of a suite's interpreters: HOOP_SUITE_LOOP=hoop makes hoop's loop the default of asyncio."""

import os

if os.environ.get("HOOP_SUITE_LOOP") == "hoop":
    import asyncio
    import asyncio.unix_events

    import hoop

    asyncio.SelectorEventLoop = hoop.Loop
    asyncio.unix_events._UnixDefaultEventLoopPolicy._loop_factory = hoop.Loop
    if hasattr(asyncio, "EventLoop"):  # Python 3.13
        asyncio.EventLoop = hoop.Loop

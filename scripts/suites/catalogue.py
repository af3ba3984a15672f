"""The suites that run.py knows: whose they are, what they need, and how they are run."""

from __future__ import annotations

import dataclasses

# A test that hangs fails by itself; a suite that hangs is ended.
TEST_TIMEOUT_S = 30


@dataclasses.dataclass(frozen=True)
class Suite:
    name: str
    """Of the project; its sdist has the tests."""
    needs: tuple[str, ...]
    """What the tests import, as requirements; the project itself comes as it is installed by users."""
    tests: tuple[str, ...]
    """What to run: files or folders of the sdist for pytest, names for trial."""
    options: tuple[str, ...] = ()
    drops: tuple[str, ...] = ()
    """Folders of the sdist that would hide the installed package."""
    is_trial: bool = False
    """Run by Twisted's own runner."""
    environment: tuple[tuple[str, str], ...] = ()


PYTEST = ("pytest>=8", "pytest-timeout", "pytest-mock", "pytest-xdist", "psutil", "trustme")

SUITES = {
    suite.name: suite
    for suite in (
        Suite(
            "uvloop",
            (*PYTEST, "aiohttp", "pyOpenSSL"),
            (
                *("tests/test_base.py", "tests/test_context.py", "tests/test_dns.py", "tests/test_executors.py"),
                *("tests/test_pipes.py", "tests/test_process.py", "tests/test_regr1.py", "tests/test_signals.py"),
                *("tests/test_sockets.py", "tests/test_tcp.py", "tests/test_udp.py", "tests/test_unix.py"),
                *("tests/test_aiohttp.py", "tests/test_process_spawning.py"),
            ),
            ("--import-mode=importlib", "-k", "UV or not AIO"),
            drops=("uvloop",),
        ),
        Suite(
            "aiohttp",
            (*PYTEST, *"pytest-cov freezegun proxy.py blockbuster isal zlib_ng pytest-codspeed Brotli".split()),
            ("tests",),
            ("-m", "not dev_mode and not autobahn and not internal", "--strict-markers"),
            drops=("aiohttp",),
        ),
        Suite(
            "uvicorn",
            (
                *(*PYTEST, "httptools", "python-dotenv", "PyYAML", "watchfiles", "websockets", "wsproto", "a2wsgi"),
                *("httpx", "httpx2", "cryptography", "pytest-codspeed"),
            ),
            ("tests",),
            ("--ignore=tests/benchmarks",),
            drops=("uvicorn",),
        ),
        Suite(
            "anyio",
            (*PYTEST, "hypothesis", "blockbuster", "truststore", "exceptiongroup"),
            ("tests",),
            ("-k", "asyncio", "-m", "not network"),
            drops=("src",),
        ),
        Suite(
            "tornado",
            PYTEST,
            ("tornado.test",),
            ("--pyargs", "-o", "python_files=*_test.py", "-p", "no:logging"),  # its tests look at what is logged
            drops=("tornado",),
        ),
        Suite(
            "twisted",
            ("twisted[tls]", "hypothesis", "pyhamcrest", "cython-test-exception-raiser", "httpx", "h2", "priority"),
            (
                *("twisted.internet", "twisted.test.test_tcp", "twisted.test.test_process", "twisted.test.test_udp"),
                *("twisted.test.test_unix", "twisted.test.test_ssl", "twisted.test.test_threads", "twisted.web.test"),
                *("twisted.test.test_internet", "twisted.test.test_iutils", "twisted.test.test_ftp"),
                "twisted.names.test",
                *("twisted.test.test_loopback", "twisted.test.test_stdio", "twisted.test.test_sslverify"),
            ),
            drops=("src",),
            is_trial=True,
        ),
    )
}

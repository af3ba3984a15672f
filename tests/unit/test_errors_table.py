"""docs/errors.md has a row for every function outside of csrc that csrc calls and that can fail."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "errors.md").read_text()

COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
TEXT = re.compile(r'"(?:[^"\\\n]|\\.)*"')
CALLED = re.compile(r"\b([a-z_]\w*)\s*\(")
DEFINED = re.compile(r"^[a-z_][\w \t*]*?\b([a-z_]\w*)\([^;{]*\)\s*\{", re.MULTILINE)
FIELD = re.compile(r"\(\*(\w+)\)\(")  # functions in structures: those are csrc's own
LOCAL = re.compile(r"\bSYS_(\w+)\b")

WORDS = {
    *"if while for switch return sizeof defined do else void int long ssize_t offsetof abandon move run visit".split()
}
CANNOT_FAIL = set(
    """abort free freeaddrinfo fprintf snprintf htonl htons ntohl ntohs memchr memcmp memcpy memmove memset strchr
    strcmp strcspn strspn strlen strncasecmp strnlen strrchr strtok_r pthread_equal pthread_self syscall
    fclose dirfd""".split()
)
ALLOCATES = {"malloc", "calloc", "realloc", "strdup", "strndup"}


def code_of(path: Path) -> str:
    return TEXT.sub('""', COMMENT.sub("", path.read_text()))


def calls() -> list[str]:
    called: set[str] = set()
    own: set[str] = set()
    for path in sorted((ROOT / "csrc").glob("*.[ch]")):
        code = code_of(path)
        called |= set(CALLED.findall(code)) | set(LOCAL.findall(code))
        own |= set(DEFINED.findall(code)) | set(FIELD.findall(code))
    called -= own | WORDS | CANNOT_FAIL | ALLOCATES
    return sorted(name for name in called if not name.startswith(("_", "hoop_", "atomic_")))


def test_the_calls_are_found() -> None:
    """The scan itself: what every system has must be among them."""
    assert {"accept4", "epoll_ctl", "ppoll", "recv", "openat2", "pthread_mutex_init"} <= set(calls())


def test_every_call_has_a_row() -> None:
    rows = " ".join(line.split("|")[1] for line in PAGE.splitlines() if line.startswith("| "))
    missing = [name for name in calls() if f"`{name}`" not in rows]
    assert all(name.startswith("pthread_") for name in missing), missing  # for which there is a row of the others

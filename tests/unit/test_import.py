"""What `import hoop` loads, and what it leaves until a program asks for it."""

from __future__ import annotations

import copy
import pickle
import sys
import warnings

import hoop
import pytest
from interpreter import run_script

# Loaded when a public name of theirs, or a method that needs them, is used for the first time.
ON_DEMAND = (
    *("compress", "crypto", "dns", "fs", "limits", "monitor", "policy"),
    *("files.file_jobs", "handles.socket", "handles.udp_socket", "jobs.offload"),
    *("names.address_info", "names.name_jobs"),
    *("net.admission", "net.datagram", "net.listener", "net.pipe", "net.stream", "net.writing"),
    *("streams.stream_api", "streams.streams", "tls.engine", "tls.session", "tls.tls_transport"),
)
FOREIGN = ("bz2", "dataclasses", "hashlib", "hmac", "ipaddress", "lzma", "pathlib", "shutil", "tempfile")


def printed(program: str) -> str:
    status, output, errors = run_script(program)
    assert status == 0, errors
    return output


def test_importing_loads_no_module_that_waits_for_its_first_use() -> None:
    program = f"""
import asyncio, sys
before = set(sys.modules)
import hoop
waiting = [*{[f"hoop.{name}" for name in ON_DEMAND]}, *{list(FOREIGN)}]
print(sorted(set(waiting) & (set(sys.modules) - before)))
"""
    assert printed(program) == "[]"


def test_a_loop_that_runs_loads_none_either() -> None:
    program = f"""
import asyncio, sys
import hoop
before = set(sys.modules)
hoop.run(asyncio.sleep(0))
print(sorted(set({[f"hoop.{name}" for name in ON_DEMAND]}) & set(sys.modules)))
"""
    assert printed(program) == "[]"


def test_each_public_name_is_there_after_a_plain_import() -> None:
    program = """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)
import hoop
for name in hoop.__all__:
    value = getattr(hoop, name)
    exec(f"from hoop import {name} as imported")
    if not value is imported is vars(hoop)[name]:
        print(name)
"""
    assert printed(program) == ""


def test_the_module_of_limits_is_an_attribute_of_the_package() -> None:
    assert printed("import hoop; print(hoop.limits.__name__)") == "hoop.limits"


def test_everything_public_can_be_imported_at_once() -> None:
    program = """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)
import hoop
public = list(hoop.__all__)
from hoop import *
print([name for name in public if globals()[name] is not getattr(hoop, name)])
"""
    assert printed(program) == "[]"


def test_dir_names_what_is_not_loaded_yet() -> None:
    program = "import hoop; print(sorted(set(hoop.__all__) - set(dir(hoop))), dir(hoop) == sorted(set(dir(hoop))))"
    assert printed(program) == "[] True"


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'hoop' has no attribute 'nonsense'"):
        hoop.nonsense  # noqa: B018
    with pytest.raises(ImportError):
        from hoop import nonsense  # noqa: F401


def test_values_that_were_loaded_on_demand_can_be_pickled_and_copied() -> None:
    limits = hoop.Limits(idle_timeout=5)
    assert pickle.loads(pickle.dumps(limits)) == copy.deepcopy(limits) == limits
    assert pickle.loads(pickle.dumps(hoop.StreamReader)) is hoop.StreamReader
    pickled = pickle.dumps(limits)
    assert printed(f"import pickle; print(pickle.loads({pickled!r}))") == repr(limits)


@pytest.mark.skipif(sys.version_info >= (3, 16), reason="Python 3.16 removes event loop policies")
def test_the_policy_is_the_same_each_time() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        assert hoop.EventLoopPolicy is hoop.EventLoopPolicy

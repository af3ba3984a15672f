"""HOOP_MONITOR in a cluster: `hoop ctl blocked` while it runs, and each worker's table when it ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clusters import Client, cluster, until
from hoop.cluster.control import ControlClient
from hoop.command.ctl import blocked_lines

LINE = "in handle: time.sleep(float(words[0]))"
NO_ANSWER = "no answer within 2 s, its loop has been held for "
WAITS_FOR_A_FILE = "run while not os.path.exists('go'): time.sleep(0.01)"


def test_what_holds_workers_is_told_by_ctl_and_at_the_end(tmp_path: Path) -> None:
    control = tmp_path / "control.sock"
    with cluster(tmp_path, env={"HOOP_MONITOR": "50ms"}, control=str(control)) as running:
        address = running.serving()
        client = Client(address)
        pid, slot = client.ask("who").split()[:2]
        client.ask("block 0.3")
        with ControlClient(control) as asking:
            found: Any = None

            def is_told() -> bool:
                nonlocal found
                found = asking.ask("blocked")
                return LINE in "\n".join(blocked_lines(found))

            until(is_told)
            assert [worker["slot"] for worker in found["workers"]] == [0, 1]
            assert any(line.startswith(f"worker {slot} (process {pid}): held ") for line in blocked_lines(found))
            client.send(WAITS_FOR_A_FILE)
            until(lambda: NO_ANSWER in "\n".join(blocked_lines(asking.ask("blocked"))))
            (tmp_path / "go").touch()
            client.answer()
        client.close()
        assert running.stop() == 0
        text = "\n".join(running.lines)
    assert f"hoop.monitor, process {pid}: held " in text and LINE in text

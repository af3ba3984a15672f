"""A supervisor that is restored from a snapshot after any history decides as the one that the snapshot was taken of."""

from __future__ import annotations

import copy
import json

from hoop.cluster.supervisor import KEPT, Event, Supervisor
from hypothesis import settings
from test_supervisor import World


class WorldOfUpgrades(World):
    """After each event another one goes on, beside the one that has lived on."""

    def tell(self, event: Event) -> None:
        before = self.supervisor
        text = json.dumps(before.snapshot())
        restored = Supervisor.restore(json.loads(text), jitter=copy.deepcopy(before._jitter))
        actions = before.handle(event, self.now)
        assert restored.handle(event, self.now) == actions
        assert restored.snapshot() == before.snapshot()
        assert restored.next_deadline() == before.next_deadline()
        self.supervisor = restored
        self.carry_out(actions, event)


WorldOfUpgrades.TestCase.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)
test_any_history_in_many_processes = WorldOfUpgrades.TestCase


def test_a_snapshot_has_all_that_a_supervisor_knows() -> None:
    given = {"times", "parallel", "workers", "slots", "role_slots", "_jitter"}  # by the shell; and written in full
    assert set(vars(Supervisor(1))) - given == set(KEPT)

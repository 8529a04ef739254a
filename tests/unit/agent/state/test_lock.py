import os

import pytest

from agent.state.lock import LockedError, RootLock


def test_case_134_a_second_agent_is_refused(tmp_path):
    lock = RootLock(str(tmp_path))
    with pytest.raises(LockedError) as caught:
        RootLock(str(tmp_path))
    assert caught.value.pid == os.getpid()
    assert str(caught.value) == f"another agent (pid {os.getpid()}) is using {tmp_path}"
    lock.close()
    lock.close()
    RootLock(str(tmp_path)).close()

"""security.md cases 157, 162 and 163 with real processes."""

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from drivers.polling import NotYet, SystemClock, wait_until
from machine import pki
from machine.model import AuthFiles, MachineRecord
from machine.store import Store
from tests.cases.machine.sshd import pretender

_ENSURE = """
import sys, time, pathlib
from machine import pki
from machine.model import AuthFiles
from machine.store import Store
store = Store(pathlib.Path(sys.argv[1]))
store.prepare()
pki.ensure(store.paths.certs, AuthFiles(), store.ca_lock, time.time(), "me")
"""


def test_case_162_twenty_first_runs_make_one_authority(tmp_path: Path) -> None:
    root = tmp_path / "s"
    running = [subprocess.Popen([sys.executable, "-c", _ENSURE, str(root)]) for _ in range(20)]
    assert [p.wait(120) for p in running] == [0] * 20
    store = Store(root)
    store.check_modes()
    found = pki.locate(store.paths.certs, AuthFiles())
    authority = pki.load_authority(found)
    cert = x509.load_pem_x509_certificate(found.client_cert.read_bytes())
    cert.verify_directly_issued_by(authority.cert)
    key = found.client_key.read_bytes()
    assert serialization.load_pem_private_key(key, None).public_key() == cert.public_key()


def _count(root: str, times: int) -> int:
    store = Store(Path(root))
    for index in range(times):
        if index % 2:
            store.update("web", _one_more)
        else:
            store.load("web")
    return times // 2


def _one_more(record: MachineRecord) -> MachineRecord:
    number = record.driver_state["n"]
    assert isinstance(number, int)
    return record.with_changes(driver_state={"n": number + 1})


def test_case_163_no_update_is_lost(tmp_path: Path) -> None:
    store = Store(tmp_path / "s")
    store.save(MachineRecord("web", "u", "fake", "t", driver_state={"n": 0}))
    with ProcessPoolExecutor(10) as pool:
        added = sum(pool.map(_count, [str(tmp_path / "s")] * 50, [40] * 50))
    assert store.load("web").driver_state["n"] == added == 1000


def _hang(client: object) -> None:
    client.recv(1)  # type: ignore[attr-defined]
    SystemClock().wait(60)


def test_case_157_ctrl_c_stops_says_how_to_go_on_and_rm_leaves_nothing(tmp_path: Path) -> None:
    """Interrupted while SSH hangs: within 2 s, one hint, no traceback; case 159: rm meanwhile."""
    command = [sys.executable, "-m", "machine", "-s", str(tmp_path / "s")]
    env = {**os.environ, "HOME": str(tmp_path)}
    with pretender(_hang) as port:
        create = [*command, "create", "-d", "ssh", "--ssh-ip-address", "127.0.0.1"]
        running = subprocess.Popen(
            [*create, "--ssh-port", str(port), "web"],
            env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert running.stdout is not None
        for line in running.stdout:
            if "Waiting for SSH" in line:
                break
        meanwhile = subprocess.run(
            [*command, "rm", "-y", "web"], env=env, capture_output=True, text=True
        )
        assert meanwhile.returncode == 1
        assert f"process {running.pid} holds it" in meanwhile.stderr
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "Run the same command again" in err
    assert "Traceback" not in err
    record = json.loads((tmp_path / "s" / "machines" / "web" / "config.json").read_text())
    assert record["phase"] == "creating"
    removed = subprocess.run([*command, "rm", "-y", "web"], env=env, capture_output=True, text=True)
    assert removed.returncode == 0, removed.stderr
    assert list((tmp_path / "s" / "machines").iterdir()) == []


def test_locks_are_waited_for(tmp_path: Path) -> None:
    store = Store(tmp_path / "s")
    entered: list[int] = []
    with ThreadPoolExecutor(1) as pool:
        with store.ca_lock():
            waiting = pool.submit(_enter, store, entered)
            assert not entered
        waiting.result(10)
    wait_until(lambda: True if entered else NotYet(), what="lock", seconds=5, clock=SystemClock())


def _enter(store: Store, entered: list[int]) -> None:
    with store.ca_lock():
        entered.append(1)

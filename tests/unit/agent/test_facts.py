"""Facts of the host."""

import uuid

from agent.config import Config
from agent.facts import engine_id, host_facts, parse_os_release, program_version


def test_os_release():
    text = "# c\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nVERSION_ID='12'\nBAD\n"
    assert parse_os_release(text) == {
        "PRETTY_NAME": "Debian GNU/Linux 12 (bookworm)",
        "VERSION_ID": "12",
    }


def test_the_engine_id_is_made_once(tmp_path):
    first = engine_id(str(tmp_path))
    assert first == engine_id(str(tmp_path)) == str(uuid.UUID(first))
    (tmp_path / "engine-id").write_text("damaged")
    assert engine_id(str(tmp_path)) != first


def test_versions():
    assert program_version("python3").startswith("3.")
    assert program_version("no-such-program-at-all") == ""


def test_host_facts(tmp_path):
    facts = host_facts(
        Config(root=str(tmp_path), labels=("a=b",)), "crun", "1.2", lambda name: f"{name} 3"
    )
    assert facts.agent_version == "1.2"
    assert facts.labels == ("a=b",)
    assert facts.memory > 2**20
    assert facts.cpus >= 1

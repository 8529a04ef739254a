import dataclasses
import json
import time

import pytest

from machine.errors import MachineError
from machine.model import EngineOptions
from machine.provision import facts, plan, units
from machine.provision.facts import Facts, Init, Owner
from machine.provision.plan import Wanted

NOW = time.time()
DEBIAN = """motd of a login script
begin\t1
uid\t0
clock\t{now}
arch\tx86_64
kernel\t6.1.0-28-amd64
bits\t64
hostname\thost1
os\tPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"
os\tID=debian
os\tVERSION_ID="12"
os\t# a comment
init\tsystemd
python\t/usr/bin/python3 3.11 64
tool.crun\t/usr/bin/crun
tool.conmon\t/usr/bin/conmon
tool.openssl\t/usr/bin/openssl
tool.apt-get\t/usr/bin/apt-get
tool.tini\t/usr/bin/tini
ca-bundle\t/etc/ssl/certs/ca-certificates.crt
libnftables\t/usr/lib/x86_64-linux-gnu/libnftables.so.1
disk-var\t9000000
disk-opt\t9000000
listen\t0016
filesystem\toverlay
end\t1
"""


def debian() -> Facts:
    return facts.parse(DEBIAN.format(now=int(NOW)))


def wanted(**changes: object) -> Wanted:
    return dataclasses.replace(
        Wanted(
            machine="web", uuid="u1", store_id="s1", address="10.0.0.1", port=2376,
            listen="0.0.0.0", engine=EngineOptions(), driver="ssh", names=(),
            bundle="agent-1", now=NOW,
        ),
        **changes,  # type: ignore[arg-type]
    )  # fmt: skip


def test_facts() -> None:
    found = debian()
    assert found.root
    assert found.os_name == "Debian GNU/Linux 12 (bookworm)"
    assert found.python == "/usr/bin/python3"
    assert found.listening == {22}
    assert found.init is Init.SYSTEMD


@pytest.mark.parametrize("text", ["", "begin\t1\n", "\x1b[31mpassword:", "end\t1\nbegin\t1\n"])
def test_no_facts(text: str) -> None:
    with pytest.raises(MachineError, match="did not tell"):
        facts.parse(text)


def test_os_release_quoting() -> None:
    lines = ['A="x \\"y\\""', "B='z'", "C=plain", "broken", 'D="open', "#E=1"]
    assert facts.os_release(lines) == {"A": 'x "y"', "B": "z", "C": "plain"}


@pytest.mark.parametrize(
    ("seen", "path"),
    [
        (["/usr/bin/python3 3.9 64", "/usr/bin/python3.12 3.12 64"], "/usr/bin/python3.12"),
        (["/usr/bin/python3 broken"], ""),
        (["/usr/bin/python3 3.11 32"], ""),
        (["/usr/bin/python3 4.0 64"], "/usr/bin/python3"),
    ],
)
def test_python(seen: list[str], path: str) -> None:
    text = DEBIAN.format(now=1).replace("python\t/usr/bin/python3 3.11 64\n", "")
    text = text.replace("end\t1", "".join(f"python\t{s}\n" for s in seen) + "end\t1")
    assert facts.parse(text).python == path


def test_when_all_is_there_no_package_manager_runs() -> None:
    found = plan.make(debian(), wanted())
    assert (found.manager, found.packages) == ("", ())
    without_init = dataclasses.replace(debian(), tools={"crun": "x", "conmon": "x", "openssl": "x"})
    assert plan.make(without_init, wanted()).packages == ()


def test_missing_packages() -> None:
    bare = dataclasses.replace(
        debian(), tools={"apt-get": "x"}, libnftables="", ca_bundle="", python=""
    )
    found = plan.make(bare, wanted())
    assert found.manager == "apt-get"
    assert found.packages == (
        "python3", "crun", "conmon", "nftables", "openssl", "ca-certificates", "tini",
    )  # fmt: skip


def test_case_145_all_problems_at_once() -> None:
    bad = Facts(
        root=False, sudo=True, clock=int(NOW) - 86400, arch="i686", bits="32", kernel="4.19.0",
        readonly=("/opt",), disk_var=50 * 1024, disk_opt=10, listening=frozenset({2376}),
    )  # fmt: skip
    found = "\n".join(plan.problems(bad, wanted()))
    for part in ("sudo asks for a password", "i686 (32 bit)", "4.19.0", "50 MiB", "port 2376",
                 " s behind this computer", "crun", "none of apt-get"):  # fmt: skip
        assert part in found, part
    root = dataclasses.replace(bad, root=True)
    assert "read-only: /opt" in "\n".join(plan.problems(root, wanted()))
    assert "there is no sudo" in plan.problems(Facts(), wanted())[0]


def test_a_good_host_has_no_problems() -> None:
    assert plan.problems(debian(), wanted()) == []


@pytest.mark.parametrize(
    ("skew", "fine"), [(-3500, False), (-2900, True), (2900, True), (172800, False)]
)
def test_case_97_clock(skew: int, fine: bool) -> None:
    found = plan.problems(dataclasses.replace(debian(), clock=int(NOW) + skew), wanted())
    assert (found == []) is fine


def test_owned_hosts() -> None:
    def of(store: str, uuid: str, **changes: object) -> list[str]:
        owned = dataclasses.replace(
            debian(), owner=Owner(store, "old", uuid, 2376), listening=frozenset({2376})
        )
        return plan.problems(owned, wanted(**changes))

    assert of("s1", "u1") == []
    assert of("s1", "u2") == [], "removed from this store without --uninstall"
    assert "of this store" in of("s1", "u2", others=frozenset({"u2"}))[0]
    assert "another store" in of("s2", "u1x")[0]
    assert of("s2", "u9", take_over=True) == []


def test_case_149_values_arrive_byte_exact() -> None:
    evil = "k=$(touch /canary/p) `id` '\"; rm -rf / #\\"
    engine = EngineOptions(labels=(evil,), registry_mirrors=("http://m",), env=(evil,))
    found = plan.make(debian(), wanted(engine=engine))
    assert json.loads(json.dumps(found.config))["labels"] == [evil, "provider=ssh"]
    assert found.environment == (evil,)
    unit = units.systemd("@ENVIRONMENT@\nExecStart=@PYTHON@ x\n", "/p", ['A=a "b" %h \\n'])
    assert unit == 'Environment="A=a \\"b\\" %%h \\\\n"\nExecStart=/p x\n'


@pytest.mark.parametrize("bad", ["A=b\nExecStart=evil", "=x", "1A=x", "A", "A B=c"])
def test_case_149_bad_environment(bad: str) -> None:
    with pytest.raises(MachineError, match="engine-env"):
        units.systemd("", "/p", [bad])


def test_engine_options() -> None:
    engine = EngineOptions(
        opts=("mtu=1400", "bip=10.9.0.1/24", "debug", "dns=1.1.1.1", "dns=8.8.8.8")
    )
    config = plan.make(debian(), wanted(engine=engine)).config
    assert config["bridge"] == {"bip": "10.9.0.1/24", "mtu": 1400}
    assert config["dns"] == ["1.1.1.1", "8.8.8.8"]
    assert config["log_level"] == "debug"
    bad = EngineOptions(
        opts=("userns-remap=x", "live-restore=false"), storage_driver="zfs", labels=("x",)
    )
    assert len(plan.problems(debian(), wanted(engine=bad))) == 4


def test_config_is_what_the_agent_reads() -> None:
    from agent import config as agent_config

    engine = EngineOptions(
        labels=("a=b",), registry_mirrors=("http://10.0.0.1:5000",),
        insecure_registries=("10.0.0.0/8",), opts=("mtu=1400", "data-root=/srv/machine"),
    )  # fmt: skip
    found = agent_config.parse(json.dumps(plan.make(debian(), wanted(engine=engine)).config))
    assert found.tcp is not None
    assert found.tcp.store_id == "s1"
    assert found.registry_mirrors == ("http://10.0.0.1:5000",)
    assert found.bridge.mtu == 1400
    assert found.root == "/srv/machine"


@pytest.mark.parametrize(("opts", "blocked"), [((), True), (("allow-imds",), False)])
def test_case_107_metadata_is_closed_unless_asked_for(opts: tuple[str, ...], blocked: bool) -> None:
    from agent import config as agent_config

    config = plan.make(debian(), wanted(engine=EngineOptions(opts=opts))).config
    assert agent_config.parse(json.dumps(config)).block_metadata is blocked

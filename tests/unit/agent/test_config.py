"""The configuration file: what is taken, and the one line that each mistake gets."""

import json
import os

import pytest

from agent.config import BridgeConfig, Config, ConfigError, Tcp, check_key, load, parse

TLS = {"ca": "/t/ca.pem", "cert": "/t/cert.pem", "key": "/t/key.pem"}


def test_an_empty_file_means_the_defaults():
    assert parse("{}") == parse("") == Config()


def test_all_keys():
    config = parse(
        json.dumps(
            {
                "root": "/srv/machine/",
                "run": "/run/m",
                "unix_socket": "/run/m/d.sock",
                "group": None,
                "tcp": {**TLS, "listen": "::", "port": 2377, "names": ["a"], "store_id": "s"},
                "registry_mirrors": ["http://10.0.0.1:5000"],
                "insecure_registries": ["10.0.0.0/8"],
                "labels": ["a=b"],
                "runtime": "crun",
                "bridge": {"name": "br9", "bip": "172.30.0.1/16", "mtu": 1400},
                "nft_table": "m",
                "init_path": "/usr/bin/tini",
                "dns": ["9.9.9.9"],
                "block_metadata": True,
                "log_level": "debug",
            }
        )
    )
    assert config.root == "/srv/machine"
    assert config.tcp == Tcp("/t/ca.pem", "/t/cert.pem", "/t/key.pem", "::", 2377, ("a",), "s")
    assert config.bridge == BridgeConfig("br9", "172.30.0.1/16", 1400)
    assert config.dns == ("9.9.9.9",)
    assert config.group is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "not valid JSON (line 1)"),
        ("[]", '"the file" must be an object'),
        ('{"rooot": "/x/y"}', 'unknown key "rooot"'),
        ('{"tcp": {"sert": "x"}}', 'unknown key "tcp.sert"'),
        ('{"root": "relative"}', '"root" must be an absolute path'),
        ('{"root": "/var"}', '"root" must be a folder below'),
        ('{"root": "/var/../etc"}', '"root" must be an absolute path'),
        ('{"root": 5}', '"root" must be a string'),
        ('{"root": "/a/b", "run": "/a/b"}', "must be different folders"),
        ('{"tcp": {"port": 2376}}', '"tcp.ca" is missing'),
        (json.dumps({"tcp": {**TLS, "port": 0}}), '"tcp.port" must be a number'),
        (json.dumps({"tcp": {**TLS, "port": True}}), '"tcp.port" must be a number'),
        (json.dumps({"tcp": {**TLS, "listen": "host"}}), '"tcp.listen" must be a numeric'),
        ('{"unix_socket": null}', "nothing to listen on"),
        ('{"runtime": "kata"}', '"runtime" must be "auto", "crun" or "runc"'),
        ('{"bridge": {"bip": "172.17.0.1"}}', '"bridge.bip" must be an address with prefix'),
        ('{"bridge": {"name": "a-name-that-is-too-long"}}', '"bridge.name" must be'),
        ('{"dns": "9.9.9.9"}', '"dns" must be a list'),
        ('{"dns": ["x"]}', '"dns" must be a numeric IP address'),
        ('{"log_level": "loud"}', '"log_level" must be'),
        ('{"block_metadata": 1}', '"block_metadata" must be true or false'),
        ('{"nft_table": "a b"}', '"nft_table" must be'),
    ],
)
def test_case_098_a_mistake_is_one_line_that_names_it(text, says):
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_mirror_with_a_password_is_refused_without_showing_it():
    with pytest.raises(ConfigError) as caught:
        parse('{"registry_mirrors": ["https://me:hunter2@mirror"]}')
    assert "hunter2" not in str(caught.value)


def test_load(tmp_path):
    path = tmp_path / "agent.json"
    assert load(str(path), optional=True) == Config()
    with pytest.raises(ConfigError, match="no such file"):
        load(str(path))
    path.write_text('{"log_level": "debug"}')
    assert load(str(path)).log_level == "debug"
    path.write_text('{"x": 1}')
    with pytest.raises(ConfigError, match=r"agent\.json: unknown key"):
        load(str(path))


def test_case_098_key_files(tmp_path):
    paths = {name: str(tmp_path / name) for name in ("ca", "cert", "key")}
    tcp = Tcp(paths["ca"], paths["cert"], paths["key"])
    with pytest.raises(ConfigError, match=r'"tcp\.ca".*No such file'):
        check_key(tcp)
    for path in paths.values():
        (tmp_path / path).write_text("x")
        os.chmod(path, 0o644)
    with pytest.raises(ConfigError, match=r'"tcp\.key".*others may read it \(mode 0644\)'):
        check_key(tcp)
    os.chmod(paths["key"], 0o600)
    check_key(tcp)
    (tmp_path / "cert").unlink()
    (tmp_path / "cert").mkdir()
    with pytest.raises(ConfigError, match="directory"):
        check_key(tcp)

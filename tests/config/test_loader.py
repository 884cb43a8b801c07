"""Settings from a file, the environment and arguments: later ones win, nothing is skipped, faults are located."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibfast import Config
from ibfast.config import AuthConfig, HeartbeatConfig, TlsConfig
from ibfast.config.loader import CONFIG_VARIABLE, SECRET, SERVICE_VARIABLE, paths_of, sections_of, variables_of
from ibfast.errors import ConfigError

EXAMPLES: dict[str, Any] = {
    "host": "gateway.example.net",
    "feed_capacity": 4096,
    "time_zone": "Europe/Berlin",
    "stream_url": "wss://desk.example.net/stream",
    "stream_token": "token",
    "tls.ca_file": "ca.pem",
    "tls.certificate": "client.pem",
    "tls.key": "client.key",
    "tls.key_password": 'a "quoted", secret',
    "tls.server_name": "gateway.example.net",
    "tls.minimum_version": "1.3",
    "reconnection.max_attempts": 7,
    "reconnection.daily_restart": "23:45",
    "reconnection.weekly_login": "SUN 01:00",
    "reconnection.zone": "Asia/Tokyo",
    "pacing.tick_by_tick": 3,
    "auth.account_type": "paper",
    "auth.accounts": ("DU1", "DU2"),
    "session.store": "subscriptions.sqlite",
    "session.name": "desk",
    "session.client_ids": (7, 8),
    "breaker.failure_rate": 0.75,
    "fanout.host": "0.0.0.0",
    "security.tokens_file": "tokens.toml",
    "security.jwt_secret_file": "jwt.secret",
    "security.jwt_public_key_file": "jwt.pem",
    "security.audience": "desk",
    "security.issuer": "office",
    "security.origins": ("https://desk.example.com", "null"),
    "security.certificate_file": "server.pem",
    "security.key_file": "server.key",
}
"""Where another value than the default can't be made from the type alone."""

ALONE = {"security.jwt_public_key_file", "security.allow_anonymous"}
"""What can't stand beside another setting."""


def default(path: str) -> Any:
    section, _, name = path.rpartition(".")
    owner = sections_of(Config)[section]() if section else Config()
    return getattr(owner, name)


def example(path: str) -> Any:
    """A value that is possible and not the default."""
    if path in EXAMPLES:
        return EXAMPLES[path]
    match default(path):
        case bool() as value:
            return not value
        case int() | float() as value:
            return value + 1
    pytest.fail(f"add an example of {path}")


def given_value(config: Config, path: str) -> Any:
    section, _, name = path.rpartition(".")
    return getattr(getattr(config, section) if section else config, name)


def as_text(value: Any) -> str:
    """As somebody would write it into an environment variable."""
    match value:
        case tuple():
            return ",".join(as_text(item) for item in value)
        case bool():
            return str(value).lower()
    return str(value)


def as_toml(values: Mapping[str, Any]) -> str:
    """TOML of settings by path. Texts, numbers, flags and lists look the same in JSON."""
    tables: dict[str, list[str]] = {"": []}
    for path, value in values.items():
        section, _, name = path.rpartition(".")
        tables.setdefault(section, []).append(f"{name} = {json.dumps(value)}")
    return "\n".join(
        line for section, lines in tables.items() for line in ([f"[{section}]"] if section else []) + lines
    )


def as_arguments(values: Mapping[str, Any]) -> dict[str, Any]:
    arguments: dict[str, Any] = {}
    for path, value in values.items():
        section, _, name = path.rpartition(".")
        (arguments.setdefault(section, {}) if section else arguments)[name] = value
    return arguments


def as_environment(values: Mapping[str, Any]) -> dict[str, str]:
    taken = {f"{section}.{name}".lstrip("."): variable for variable, (section, name) in variables_of(Config).items()}
    return {taken[path]: as_text(value) for path, value in values.items()}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "ibfast.toml"
    path.touch(0o600)
    return path


ALL = {path: example(path) for path in paths_of(Config) if path not in ALONE}


def test_the_examples_are_no_defaults() -> None:
    assert {path for path in ALL if ALL[path] == default(path)} == set()
    assert EXAMPLES.keys() | ALONE <= ALL.keys() | ALONE == set(paths_of(Config))


def test_every_setting_has_its_own_variable() -> None:
    variables = variables_of(Config)
    assert len(variables) == len(paths_of(Config))
    assert variables["IBFAST_PORT"] == ("", "port")
    assert variables["IBFAST_HEARTBEAT_INTERVAL_S"] == ("heartbeat", "interval_s")


def assert_all_taken(config: Config) -> None:
    assert {path: given_value(config, path) for path in ALL} == ALL
    types = {path: type(given_value(config, path)) for path in ALL}
    assert types == {path: type(value) for path, value in ALL.items()}


def test_every_setting_can_stand_in_a_file(file: Path) -> None:
    file.write_text(as_toml(ALL))
    assert_all_taken(Config.load(file, environ={}))


def test_every_setting_can_stand_in_the_environment() -> None:
    assert_all_taken(Config.load(environ=as_environment(ALL)))


def test_every_setting_can_be_an_argument() -> None:
    config = Config.load(environ={}, **as_arguments(ALL))
    assert_all_taken(config)
    sections = {name: getattr(config, name) for name in sections_of(Config)}
    flat = {path: value for path, value in ALL.items() if "." not in path}
    assert Config.load(environ={}, **flat, **sections) == config == Config(**flat, **sections)


@pytest.mark.parametrize("path", sorted(ALONE))
def test_what_stands_alone_can_stand_anywhere(file: Path, path: str) -> None:
    values = {path: example(path)}
    file.write_text(as_toml(values))
    config = Config.load(file, environ={})
    assert given_value(config, path) == values[path]
    assert config == Config.load(environ=as_environment(values)) == Config.load(environ={}, **as_arguments(values))


@given(st.integers(1, 65535), st.floats(1e-3, 86_400), st.text("αβ\"'\\ #=,\n", min_size=1), st.booleans())
def test_file_and_environment_say_the_same(
    tmp_path_factory: pytest.TempPathFactory, port: int, timeout_s: float, name: str, flag: bool
) -> None:
    values = {"port": port, "request_timeout_s": timeout_s, "session.name": name, "auth.read_only": flag}
    file = tmp_path_factory.getbasetemp() / "same.toml"
    file.write_text(as_toml(values), encoding="utf-8")
    config = Config.load(file, environ={})
    assert config == Config.load(environ=as_environment(values)) == Config.load(environ={}, **as_arguments(values))
    assert (config.port, config.request_timeout_s, config.session.name) == (port, timeout_s, name)


def test_nothing_given_is_the_defaults() -> None:
    assert Config.load(environ={}) == Config()
    assert Config.load(environ={"PATH": "/bin", "IBFAST_DEBUG": "1", CONFIG_VARIABLE: ""}) == Config()


def test_later_ones_win_field_by_field(file: Path) -> None:
    file.write_text("port = 1\nclient_id = 1\nhost = 'file'\n[heartbeat]\ninterval_s = 1\ntimeout_s = 1\ndead_s = 90\n")
    environ = {"IBFAST_PORT": "2", "IBFAST_CLIENT_ID": "2", "IBFAST_HEARTBEAT_INTERVAL_S": "2"}
    environ["IBFAST_HEARTBEAT_TIMEOUT_S"] = "2"
    config = Config.load(file, environ=environ, port=3, host=None, heartbeat={"interval_s": 3.0, "dead_s": None})
    assert (config.host, config.client_id, config.port) == ("file", 2, 3)
    assert config.heartbeat == HeartbeatConfig(interval_s=3.0, timeout_s=2.0, dead_s=90)
    whole = Config.load(file, environ=environ, heartbeat=HeartbeatConfig(interval_s=4.0))
    assert whole.heartbeat == HeartbeatConfig(interval_s=4.0)


WRONG = "port = 'many'\nclient_id = -1\n[heartbeat]\ninterval_s = 'long'\ntimeout_s = []\n"
WRONG_VARIABLES = {"IBFAST_PORT": "many", "IBFAST_CLIENT_ID": "", "IBFAST_HEARTBEAT_INTERVAL_S": "long"}


def test_a_value_that_is_overridden_is_not_judged(file: Path) -> None:
    file.write_text(WRONG)
    right = {"IBFAST_PORT": "4002", "IBFAST_CLIENT_ID": "3", "IBFAST_HEARTBEAT_INTERVAL_S": "2"}
    config = Config.load(file, environ=right | {"IBFAST_HEARTBEAT_TIMEOUT_S": "1"})
    assert (config.port, config.client_id, config.heartbeat) == (4002, 3, HeartbeatConfig(interval_s=2, timeout_s=1))
    by_argument = Config.load(
        file, environ=WRONG_VARIABLES, port=4002, client_id=3, heartbeat={"interval_s": 2.0, "timeout_s": 1.0}
    )
    assert by_argument == config
    whole = Config.load(file, environ=WRONG_VARIABLES, port=4002, client_id=3, heartbeat=config.heartbeat)
    assert whole == config


def test_a_section_as_a_whole_is_not_completed_by_others(file: Path) -> None:
    file.write_text("[tls]\nserver_name = 'file'")
    environ = {"IBFAST_TLS_CA_FILE": "variable"}
    assert Config.load(file, environ=environ, tls=TlsConfig()).tls == TlsConfig()
    assert Config.load(file, environ=environ).tls == TlsConfig(server_name="file", ca_file="variable")


def services(name: str) -> dict[str, str]:
    """The variables that Kubernetes sets for a Service of that name with two ports, one of them named."""
    variables = {"SERVICE_HOST": "10.96.0.7", "SERVICE_PORT": "7497", "SERVICE_PORT_TLS_GATEWAY": "8443"}
    variables["PORT"] = "tcp://10.96.0.7:7497"
    for port, protocol in ((7497, "tcp"), (8443, "udp"), (9000, "sctp")):
        form = f"PORT_{port}_{protocol.upper()}"
        variables |= {form: f"{protocol}://10.96.0.7:{port}", f"{form}_PROTO": protocol}
        variables |= {f"{form}_PORT": str(port), f"{form}_ADDR": "10.96.0.7"}
    return {f"{name.upper().replace('-', '_')}_{key}": value for key, value in variables.items()}


@pytest.mark.parametrize("name", ["ibfast", "ibfast-fanout", "ibfast-tls", "ibfast-gateway-2", "ibfast-config"])
def test_what_kubernetes_sets_for_a_service_is_no_setting(name: str) -> None:
    assert Config.load(environ=services(name)) == Config()
    assert Config.load(environ=services(name) | {"IBFAST_CLIENT_ID": "7"}) == Config(client_id=7)


def test_no_setting_has_the_name_of_a_services_variable() -> None:
    port = {variable: "7497" for variable in variables_of(Config) if variable.endswith("PORT")}
    config = Config.load(environ=port)
    assert (config.port, config.fanout.port, len(port)) == (7497, 7497, 2)
    assert not [variable for variable in variables_of(Config) if SERVICE_VARIABLE.fullmatch(variable)]


def test_the_file_is_found_by_its_variable(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text("port = 4001")
    assert Config.load(environ={CONFIG_VARIABLE: str(file)}).port == 4001
    monkeypatch.setenv(CONFIG_VARIABLE, str(file))
    monkeypatch.setenv("IBFAST_CLIENT_ID", "9")
    assert (Config.load().port, Config.load().client_id) == (4001, 9)
    other = file.with_name("other.toml")
    other.write_text("port = 4002")
    assert Config.load(str(other)).port == 4002
    monkeypatch.setenv("HOME", str(file.parent))
    assert Config.load("~/ibfast.toml", environ={}).port == 4001


def test_naming_tls_is_enough_to_have_it(file: Path) -> None:
    file.write_text("[tls]")
    assert Config.load(file, environ={}).tls == TlsConfig()
    assert Config.load(environ={"IBFAST_TLS_SERVER_NAME": ""}).tls == TlsConfig()
    assert Config.load(environ={}, tls={}).tls == TlsConfig()


def test_texts_of_the_environment() -> None:
    def load(**variables: str) -> Config:
        return Config.load(environ={f"IBFAST_{name}": text for name, text in variables.items()})

    assert load(AUTH_ACCOUNTS=" DU1 , DU2,").auth == AuthConfig(accounts=("DU1", "DU2"))
    assert load(AUTH_ACCOUNTS="").auth == AuthConfig()
    assert load(RECONNECTION_DAILY_RESTART="").reconnection.daily_restart is None
    assert load(RECONNECTION_MAX_ATTEMPTS="").reconnection.max_attempts is None
    assert [load(AUTH_READ_ONLY=text).auth.read_only for text in ("1", "Yes", "on", "0", "no", "FALSE")] == (
        [True] * 3 + [False] * 3
    )


# --- what is wrong ---


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("prot = 1", "there is no setting 'prot' (file {file}): did you mean 'port'?"),
        ("[hartbeat]\ninterval_s = 1", "there is no setting 'hartbeat' (file {file}): did you mean 'heartbeat'?"),
        ("[heartbeat]\ninterval = 1",
         "there is no setting 'heartbeat.interval' (file {file}): did you mean 'interval_s'?"),
        ("interval_s = 1", "there is no setting 'interval_s' (file {file}): it belongs in [heartbeat]"),
        ("intervall_s = 1", "there is no setting 'intervall_s' (file {file}): did you mean 'heartbeat.interval_s'?"),
        ("[pacing]\ninterval_s = 1",
         "there is no setting 'pacing.interval_s' (file {file}): it belongs in [heartbeat]"),
        ("[pacing]\nport = 4002",
         "there is no setting 'pacing.port' (file {file}): it belongs above all sections or in [fanout]"),
        ("[reconnection]\nlins = 200", "there is no setting 'reconnection.lins' (file {file}): "
         "did you mean 'pacing.lines'?"),
        ("[auth]\nxyzzy = 1",
         "there is no setting 'auth.xyzzy' (file {file}): there are account_type, accounts, read_only"),
        ("port = 0", "port=0 is not possible: give 1 to 65535 (file {file})"),
        ("port = '7497'", "port can't be a text: give a whole number (file {file})"),
        ("port = true", "port can't be a flag: give a whole number (file {file})"),
        ("port = 7497.0", "port can't be a number: give a whole number (file {file})"),
        ("port = {}", "port can't be a table: give a whole number (file {file})"),
        ("host = 1", "host can't be a whole number: give a text in quotes (file {file})"),
        ("[heartbeat]\ninterval_s = '5'", "heartbeat.interval_s can't be a text: give a number (file {file})"),
        ("[pacing]\nenforced = 1", "pacing.enforced can't be a whole number: give true or false (file {file})"),
        ("[session]\nclient_ids = 11",
         "session.client_ids can't be a whole number: give an array of whole numbers, such as [1, 2] (file {file})"),
        ("[session]\nclient_ids = [11, '12']", "session.client_ids can't be an array with a text: "
         "give an array of whole numbers, such as [1, 2] (file {file})"),
        ("[session]\nclient_ids = [-1]",
         "session.client_ids=-1 is not possible: give whole numbers, 0 or more (file {file})"),
        ("[session]\nstore = 1979-05-27", "session.store can't be a date: give a text in quotes (file {file})"),
        ("[auth]\naccounts = 'DU1'",
         'auth.accounts can\'t be a text: give an array of texts, such as ["a", "b"] (file {file})'),
        ("[pacing]\nlines = 0", "pacing.lines=0 is not possible: give 1 or more, a whole number (file {file})"),
        ("[reconnection]\ndaily_restart = 23:45:00",
         "reconnection.daily_restart can't be a time: give a text in quotes (file {file})"),
        ("[tls]\nkey = 'client.key'",
         "tls.key is of no use without a certificate: give tls.certificate too (file {file})"),
        ("heartbeat = 5", "heartbeat is a section (file {file}): give its settings by their names"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_file_is_located(file: Path, text: str, told: str) -> None:
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        Config.load(file, environ={})
    assert str(caught.value) == told.format(file=file)


SECRETS = {
    "stream_token": 'stream_url = "wss://desk.example.net/stream"\nstream_token = "abc"',
    "tls.key_password": '[tls]\ncertificate = "client.pem"\nkey_password = "abc"',
}


def test_every_field_that_is_never_shown_is_a_secret() -> None:
    sections = {"": Config, **sections_of(Config)}
    marked = {
        f"{section}.{item.name}".lstrip(".")
        for section, cls in sections.items()
        for item in dataclasses.fields(cls)
        if item.metadata == SECRET
    }
    hidden = {
        f"{section}.{item.name}".lstrip(".")
        for section, cls in sections.items()
        for item in dataclasses.fields(cls)
        if not item.repr
    }
    assert marked == hidden == set(SECRETS)


@pytest.mark.skipif(os.name != "posix", reason="no modes")
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620])
@pytest.mark.parametrize("secret", SECRETS)
def test_a_file_with_a_secret_that_others_may_read_is_refused(file: Path, secret: str, mode: int) -> None:
    file.write_text(SECRETS[secret])
    file.chmod(mode)
    overridden = {"IBFAST_STREAM_TOKEN": "abc", "IBFAST_TLS_KEY_PASSWORD": "x", "IBFAST_TLS_CERTIFICATE": "client.pem"}
    for environ in ({}, overridden):
        with pytest.raises(ConfigError) as caught:
            Config.load(file, environ=environ)
        told = f"has a secret in it ({secret}) and can be read by others (mode {mode:03o}): chmod 600 it"
        assert str(caught.value) == f"the file {file} {told}"
    file.chmod(0o600)
    Config.load(file, environ={})


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root gives files away")
def test_a_file_with_a_secret_of_another_user_is_refused(file: Path) -> None:
    file.write_text(SECRETS["stream_token"])
    file.chmod(0o600)
    os.chown(file, 12345, 12345)
    with pytest.raises(ConfigError, match="belongs to another user"):
        Config.load(file, environ={})


@pytest.mark.skipif(os.name != "posix", reason="no modes")
def test_a_file_without_a_secret_may_be_read_by_all(file: Path) -> None:
    file.write_text("port = 4002\n[tls]\ncertificate = 'client.pem'")
    file.chmod(0o644)
    assert Config.load(file, environ={}).port == 4002


@pytest.mark.parametrize(
    ("variable", "text", "told"),
    [
        ("IBFAST_PROT", "1", "there is no setting 'IBFAST_PROT' (environment): did you mean 'IBFAST_PORT'?"),
        ("IBFAST_INTERVAL_S", "1", "there is no setting 'IBFAST_INTERVAL_S' (environment): "
         "did you mean 'IBFAST_HEARTBEAT_INTERVAL_S'?"),
        ("IBFAST_XYZZY_QQQ", "1", "there is no setting 'IBFAST_XYZZY_QQQ' (environment): "
         "the settings are those of ibfast.Config, after IBFAST_"),
        ("IBFAST_PORT", "many", "port='many' is not possible: give a whole number (variable IBFAST_PORT)"),
        ("IBFAST_PORT", "", "port='' is not possible: give a whole number (variable IBFAST_PORT)"),
        ("IBFAST_PORT", "ws://10.96.0.7:7497",
         "port='ws://10.96.0.7:7497' is not possible: give a whole number (variable IBFAST_PORT)"),
        ("IBFAST_HOST", "", "host='' is not possible: give a host name or an address (variable IBFAST_HOST)"),
        ("IBFAST_PORT", "0", "port=0 is not possible: give 1 to 65535 (variable IBFAST_PORT)"),
        ("IBFAST_HEARTBEAT_DEAD_S", "long",
         "heartbeat.dead_s='long' is not possible: give a number (variable IBFAST_HEARTBEAT_DEAD_S)"),
        ("IBFAST_AUTH_READ_ONLY", "maybe",
         "auth.read_only='maybe' is not possible: give one of 1, true, yes, on, 0, false, no, off"
         " (variable IBFAST_AUTH_READ_ONLY)"),
        ("IBFAST_SESSION_CLIENT_IDS", "1,two",
         "session.client_ids='1,two' is not possible: give a whole number (variable IBFAST_SESSION_CLIENT_IDS)"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_the_environment_is_located(variable: str, text: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config.load(environ={variable: text})
    assert str(caught.value) == told


def test_an_unknown_name_is_told_with_what_there_is(file: Path) -> None:
    file.write_text("xyzzy = 1")
    with pytest.raises(ConfigError, match=r"^there is no setting 'xyzzy' \(.*\): there are host, .*, security$"):
        Config.load(file, environ={})


def test_what_is_wrong_in_an_argument_is_located() -> None:
    with pytest.raises(ConfigError, match=r"^there is no setting 'prot' \(argument\): did you mean 'port'\?$"):
        Config.load(environ={}, prot=1)
    with pytest.raises(ConfigError, match=r"^auth\.accounts=<class 'str'> is not possible: .* \(argument\)$"):
        Config.load(environ={}, auth={"accounts": "DU1"})
    with pytest.raises(ConfigError, match=r"^heartbeat is a section \(argument\): give its settings by their names$"):
        Config.load(environ={}, heartbeat=AuthConfig())


def test_a_later_place_does_not_excuse_a_section_that_is_none(file: Path) -> None:
    file.write_text("heartbeat = 5")
    with pytest.raises(ConfigError, match=r"^heartbeat is a section \(file "):
        Config.load(file, environ={"IBFAST_HEARTBEAT_DEAD_S": "60"})


@pytest.mark.parametrize("content", [b"port = ", b"port = 1\nport = 2", b"\xff = 1"])
def test_a_file_that_is_no_toml_is_told(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"^the file .*ibfast\.toml can't be read: "):
        Config.load(file, environ={})


def test_a_file_that_is_not_there_is_told(file: Path) -> None:
    file.unlink()
    for environ, path in (({}, file), ({CONFIG_VARIABLE: str(file)}, None), ({}, file.parent)):
        with pytest.raises(ConfigError, match=r"^the file .* can't be read: .*directory"):
            Config.load(path, environ=environ)


def test_no_secret_stands_in_an_error(file: Path) -> None:
    for text in (
        "tls = 'geheim'",
        "[tls]\nkey_pasword = 'geheim'",
        "[tls]\nkey_password = ['geheim']",
        "stream_token = ['geheim']",
    ):
        file.write_text(text)
        with pytest.raises(ConfigError) as caught:
            Config.load(file, environ={})
        assert "geheim" not in str(caught.value)


def test_annotations_are_of_kinds_that_texts_can_become() -> None:
    """A new kind of field needs its conversion, or the environment would fill it with a str."""
    kinds = {
        str(get_type_hints(owner)[item.name])
        for owner in (Config, *sections_of(Config).values())
        for item in dataclasses.fields(owner)
        if owner is not Config or item.name not in sections_of(Config)
    }
    assert kinds <= {
        "<class 'str'>", "<class 'int'>", "<class 'float'>", "<class 'bool'>", "str | None", "int | None",
        "str | pathlib.Path | None", "str | os.PathLike[str] | None", "tuple[str, ...]", "tuple[int, ...]",
    }  # fmt: skip

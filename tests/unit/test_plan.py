"""How the stream is to go, from command line and configuration."""

from __future__ import annotations

import pytest

from orchestrator import config as config_module
from orchestrator.errors import ConfigError
from orchestrator.plan import CloneOptions, read_manner

CONFIG = config_module.parse(
    {
        "clone": {"throttle": "1G", "nice": True, "relay": True, "compress": "zstd"},
        "hosts": {"db1": {"vault_mount": "keys/db1"}},
    }
)


def test_the_configuration_decides_where_nothing_was_said() -> None:
    """With values that a plan can hold."""
    found = read_manner(CONFIG, CloneOptions())
    assert found == {"throttle": 1 << 30, "nice": True, "relay": True, "compress": "zstd:1"}


def test_the_command_line_comes_first() -> None:
    """Also where it takes away what the configuration asks for."""
    options = CloneOptions(throttle="none", nice=False, relay=False, compress="none")
    found = {"throttle": 0, "nice": False, "relay": False, "compress": "none"}
    assert read_manner(CONFIG, options) == found


@pytest.mark.parametrize("options", [{"throttle": "0"}, {"compress": "zstd:0"}])
def test_what_means_nothing_is_refused(options: dict[str, str]) -> None:
    """Whoever calls: before any host is asked."""
    with pytest.raises(ConfigError, match="an option must be"):
        read_manner(CONFIG, CloneOptions(**options))  # type: ignore[arg-type]  # plain words

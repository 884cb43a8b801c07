"""Settings: a setting that exists is possible."""

from typing import TYPE_CHECKING

from ibfast.common.lazy import lazily

if TYPE_CHECKING:
    from ibfast.config.sections import (
        AuthConfig,
        BreakerConfig,
        Config,
        FanoutConfig,
        HeartbeatConfig,
        PacingConfig,
        ReconnectionConfig,
        SessionConfig,
    )
    from ibfast.config.security import SecurityConfig
    from ibfast.config.tls import TlsConfig
else:
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "ibfast.config.sections": (
                "AuthConfig",
                "BreakerConfig",
                "Config",
                "FanoutConfig",
                "HeartbeatConfig",
                "PacingConfig",
                "ReconnectionConfig",
                "SessionConfig",
            ),
            "ibfast.config.security": ("SecurityConfig",),
            "ibfast.config.tls": ("TlsConfig",),
        },
    )

__all__ = [
    "AuthConfig",
    "BreakerConfig",
    "Config",
    "FanoutConfig",
    "HeartbeatConfig",
    "PacingConfig",
    "ReconnectionConfig",
    "SecurityConfig",
    "SessionConfig",
    "TlsConfig",
]

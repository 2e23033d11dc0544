"""How this machine reaches its package registries."""

import os
import re

VARIABLE = re.compile(r"^(PIP_|SSL_CERT|REQUESTS_CA|https?_proxy|no_proxy)", re.IGNORECASE)


def registry_settings() -> dict[str, str]:
    """The variables of this process' environment that an installation elsewhere needs too."""
    return {name: value for name, value in os.environ.items() if VARIABLE.match(name)}

"""One way to a server: clients, what their answers may cost, and when to ask again."""

from research_kit.wire.client import open_client

__all__ = ["open_client"]

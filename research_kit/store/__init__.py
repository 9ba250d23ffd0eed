"""The embedded Langfuse-compatible store: ingest, query, pages, life of its process."""

from research_kit.store.address import StoreAddress, StoreStatus
from research_kit.store.lifecycle import ensure_running, get_store_status, stop_store
from research_kit.store.links import opening_link, page_address

__all__ = [
    "StoreAddress",
    "StoreStatus",
    "ensure_running",
    "get_store_status",
    "opening_link",
    "page_address",
    "stop_store",
]

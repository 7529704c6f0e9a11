"""Stores: places for objects, one driver per kind (design: section 8)."""

from vantage6_largefile.stores.base import ObjectInfo, Part, Store, StoreLimits, UploadSession
from vantage6_largefile.stores.registry import installed_drivers, open_store

__all__ = ["ObjectInfo", "Part", "Store", "StoreLimits", "UploadSession", "installed_drivers", "open_store"]

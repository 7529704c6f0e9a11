"""Large results for vantage6: objects in each party's own store, references on the server."""

__version__ = "0.1.0.dev0"

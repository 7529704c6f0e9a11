"""The server's half: a vantage6 server that keeps references instead of large values.

Start with :mod:`server_ext.app`. All touching of vantage6's internals is in :mod:`server_ext.seams`.
"""

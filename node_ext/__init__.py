"""The node's half: results go to the node's own store, the server gets a reference.

Start reading at :mod:`node_ext.main` (the command), :mod:`node_ext.seams` (what of vantage6 is replaced) and
:mod:`node_ext.runtime` (what the replacements share).
"""

"""``vnode-local`` for an extended node: vantage6's own commands, with the seams in place.

``python -m node_ext.main start …`` takes exactly what ``vnode-local start …`` takes. In the node image this module
stands behind the name ``vnode-local``.
"""

from __future__ import annotations

import click
from vantage6.node.cli.node import cli_node

from node_ext import seams

cli: click.Group = cli_node


def main() -> None:
    """Run the command line."""
    seams.replace_run()
    cli()


if __name__ == "__main__":
    main()

"""Start one node daemon as a process of this host, for the demo and the tests only.

A hospital's node is started by ``v6 node start``. What this module does differently (a host process where a
container is expected, algorithms as child processes) can only be asked for on its own command line.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from node_ext import main as node_main
from node_ext import seams


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path)
    parser.add_argument("--stock", action="store_true", help="vantage6's own node, untouched")
    parser.add_argument(
        "--run-algorithms-as-processes",
        metavar="JSON",
        help="no containers and NO ISOLATION: algorithms are child processes; image names to Python modules",
    )
    parser.add_argument("--process-folder", type=Path)
    arguments = parser.parse_args()
    seams.run_on_host()
    if arguments.run_algorithms_as_processes:
        from vantage6_largefile.demo.process_engine import ProcessEngine

        seams.use_engine(ProcessEngine(arguments.process_folder, json.loads(arguments.run_algorithms_as_processes)))
    seams.give_node_context_its_attribute()
    if not arguments.stock:
        seams.replace_run()
    node_main.cli(["start", "--user", "-c", str(arguments.config)])


if __name__ == "__main__":
    main()

"""``v6-largefile``: the commands, each in few lines; what they do is in the packages below."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import yaml

from vantage6_largefile import __version__
from vantage6_largefile.cli.objects import objects
from vantage6_largefile.errors import ConfigurationError, LargeFileError

_CONFIG = click.option(
    "-c",
    "--config",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The server's configuration file (YAML), the same that the stock server takes.",
)


@click.group()
@click.version_option(__version__, prog_name="v6-largefile")
def cli() -> None:
    """Large results for vantage6: objects in each party's own store, references on the server."""


cli.add_command(objects)


@cli.command("demo", context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def demo(arguments: tuple[str, ...]) -> None:
    """Run the whole system on this machine: three hospitals, DHD, a server, a training job (--help for options)."""
    from vantage6_largefile.demo.main import main as demo_main

    sys.exit(demo_main(list(arguments)))


@cli.group()
def server() -> None:
    """The extended vantage6 server."""


@server.command("start")
@_CONFIG
@click.option("--ip", default=None, help="Address to listen on; default: the configuration's ip.")
@click.option("-p", "--port", type=int, default=None, help="Port; default: the configuration's port.")
def server_start(config: Path, ip: str | None, port: int | None) -> None:
    """Start the extended server in this process (for production use uWSGI with server_ext/wsgi.py)."""
    from server_ext.app import start_local

    start_local(str(config), ip=ip, port=port)


@cli.group()
def db() -> None:
    """The database migrations of the server extension."""


@db.command("upgrade")
@_CONFIG
def db_upgrade(config: Path) -> None:
    """Bring the database to the newest revision. Repeating it does nothing."""
    from server_ext import migrate

    uri = _database_uri(config)
    migrate.upgrade(uri)
    click.echo(f"The database is at revision {migrate.current(uri)}.")


@db.command("current")
@_CONFIG
def db_current(config: Path) -> None:
    """Print the revision of the database."""
    from server_ext import migrate

    click.echo(migrate.current(_database_uri(config)) or "none: this database was never upgraded")


@db.command("check")
@_CONFIG
def db_check(config: Path) -> None:
    """Exit code 0 when the database is at the newest revision, 1 with a message when it is not."""
    from server_ext import migrate

    migrate.check(_database_uri(config))
    click.echo("The database is at the newest revision.")


def _database_uri(config: Path) -> str:
    import os

    uri = os.environ.get("VANTAGE6_DB_URI")
    if uri:
        return uri
    document = yaml.safe_load(config.read_text("utf-8"))
    found = document.get("uri") if isinstance(document, dict) else None
    if not isinstance(found, str) or not found:
        raise ConfigurationError(["uri: expected the URI of the server's database"], source=str(config))
    return found


def main() -> None:
    """Run the command line; our own errors become one message and exit code 1 (2 for a configuration)."""
    try:
        cli()
    except ConfigurationError as error:
        click.echo(str(error), err=True)
        sys.exit(2)
    except LargeFileError as error:
        click.echo(str(error), err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()

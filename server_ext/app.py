"""Starting a vantage6 server with large file support, from the configuration file of a stock one."""

from __future__ import annotations

# First of all: importing it patches the standard library for gevent, before anything else has taken hold of it.
import vantage6.server

# isort: split
import logging
import sys

from vantage6.cli.context.server import ServerContext
from vantage6.server.model.base import Database

from server_ext import migrate, seams, settings
from vantage6_largefile import redaction
from vantage6_largefile.errors import LargeFileError

log = logging.getLogger(__name__)


class LargeFileServerApp(vantage6.server.ServerApp):  # type: ignore[misc]
    """vantage6's server with our calls. Without a ``largefile`` block in its configuration it is a stock server."""

    def load_resources(self) -> None:
        """Register stock's calls, and ours."""
        config = settings.load_config(self.ctx.config, source=str(self.ctx.config_file))
        if config is None:
            super().load_resources()
            return
        from server_ext import resources
        from server_ext.database import METADATA, ensure_server_id

        with Database().engine.begin() as connection:
            METADATA.create_all(connection)
            server_id = ensure_server_id(connection)
        settings.install(self.app, settings.Settings(config, server_id))
        super().load_resources()
        services = {
            "socketio": self.socketio,
            "storage_adapter": self.storage_adapter,
            "mail": self.mail,
            "api": self.api,
            "permissions": self.permissions,
            "config": self.ctx.config,
        }
        resources.setup(self.api, self.ctx.config["api_path"], services)
        log.info("Large file support is on; the server's id is %s.", server_id)


def install() -> None:
    """Change vantage6's server code in this process into ours, ``vantage6.server.ServerApp`` included."""
    redaction.install()
    seams.apply()
    seams.replace_server_app(LargeFileServerApp)


def run_server(config: str, system_folders: bool = True) -> vantage6.server.ServerApp:
    """What ``vantage6.server.run_server`` does, with large file support if the configuration has a ``largefile`` block.

    Parameters
    ----------
    config : str
        Path of the server's configuration file, as for the stock server.
    system_folders : bool
        As for the stock server.

    Returns
    -------
    ServerApp
        Its ``app`` is the WSGI application.

    Raises
    ------
    ConfigurationError
        The block has mistakes; all of them are in the message.
    DatabaseBehind
        The database must be upgraded first.
    UntestedVantage6
        Another version of vantage6-server is installed.
    """
    context = ServerContext.from_external_config_file(config, system_folders)
    uri = context.get_database_uri()
    if settings.load_config(context.config, source=str(config)) is None:
        log.info("There is no '%s' block in %s: this is a stock vantage6 server.", settings.BLOCK, config)
        seams.mend_enums()
    else:
        install()
        migrate.prepare(uri)
    Database().connect(uri=uri, allow_drop_all=context.config["allow_drop_all"])
    return vantage6.server.ServerApp(context).start()


def serve(config: str, system_folders: bool = False) -> vantage6.server.ServerApp:
    """:func:`run_server` for the programs that start a server.

    What the administrator has to mend is written to standard error, without a traceback, and ends the process with
    exit code 2.
    """
    try:
        return run_server(config, system_folders)
    except LargeFileError as error:
        log.critical("The server does not start: %s", error)
        sys.stderr.write(f"\nThe server does not start.\n{error}\n")
        sys.exit(2)


def start_local(config_path: str, ip: str | None = None, port: int | None = None, debug: bool = False) -> None:
    """Serve in this process, on gevent, until it is ended. For demonstrations and tests; uWSGI serves the real thing.

    Parameters
    ----------
    config_path : str
        Path of the server's configuration file.
    ip, port : optional
        Where to listen; the configuration's ``ip`` and ``port`` when not given.
    debug : bool
        Flask's debug mode.
    """
    server = serve(config_path)
    vantage6.server.run_dev_server(
        server,
        host=ip or server.ctx.config["ip"],
        port=int(port or server.ctx.config["port"]),
        debug=debug,
        use_reloader=False,
    )

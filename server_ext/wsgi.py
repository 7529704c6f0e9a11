"""The WSGI entry point, used exactly as vantage6's own ``server/wsgi.py``: the configuration file is ``argv[1]``.

For example ``uwsgi … --callable app --wsgi-file …/server_ext/wsgi.py --pyargv server.yaml``.
"""

import sys

from server_ext.app import serve

if len(sys.argv) < 2:
    sys.stderr.write("No config file provided from WSGI! Exiting...\n")
    sys.exit(1)

server_app = serve(sys.argv[1], system_folders=False)
app = server_app.app

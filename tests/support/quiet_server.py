"""Import ``vantage6.server`` in a test's own process without gevent's patches.

Importing it patches the standard library of the whole process, under all other tests. vantage6 leaves that out when it
believes that its documentation is being built; the variable is only looked at during the import.
Import this module before anything of vantage6's server.
"""

import os
import sys

if "vantage6.server" not in sys.modules:
    before = os.environ.get("READTHEDOCS")
    os.environ["READTHEDOCS"] = "1"
    try:
        import vantage6.server  # noqa: F401
    finally:
        if before is None:
            del os.environ["READTHEDOCS"]
        else:
            os.environ["READTHEDOCS"] = before

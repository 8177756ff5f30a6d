"""Run a program that uses alpaca-py against the sandbox, unchanged: python on_the_sandbox.py PROGRAM [ARGUMENT ...].

The clients of alpaca-py take their address from their own constants. Here each of them gets APCA_API_DATA_URL.
"""

import os
import runpy
import sys

from alpaca.common.rest import RESTClient

original = RESTClient.__init__


def start(client, *arguments, **named):
    """Make a client of the sandbox, whatever address alpaca-py names (it names all arguments)."""
    original(client, *arguments, **{**named, "base_url": os.environ["APCA_API_DATA_URL"]})


RESTClient.__init__ = start
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")

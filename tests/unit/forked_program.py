"""A program for test_forks.py: it says what it has been given, and then ends, or waits for a signal."""

import json
import os
import signal
import sys

print(json.dumps({"arguments": sys.argv[1:], "environment": dict(os.environ), "group": os.getpgid(0)}), flush=True)
if sys.argv[1] == "wait":
    signal.pause()
sys.exit(int(sys.argv[1]))

"""`BRIEF=1`, as CI has it: does what measures times still work? Its times are shown, and nobody judges them."""

import os
from typing import Final

BRIEF: Final = os.environ.get("BRIEF", "") == "1"

"""The command ``stemdisp``, also as ``python -m stemdisp``."""

from __future__ import annotations

import signal
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line and exit; Ctrl-C ends it without a traceback from the first moment."""
    # Python's own handler would be one; an ignored signal (in the background) stays ignored
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from stemdisp import cli

    cli.main()


if __name__ == "__main__":
    main()

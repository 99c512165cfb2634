"""What ends a command as Ctrl-C does: it keeps what is done."""

import signal

# A job that is stopped, or whose terminal is closed, ends as with Ctrl-C.
ENDING = (signal.SIGTERM, signal.SIGHUP) if hasattr(signal, "SIGHUP") else (signal.SIGTERM,)

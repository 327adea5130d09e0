"""What the server that workers are forked of imports first: a signal to the whole group must not end it.

Workers tell by its pipes that they have ended. Their parent, not the server, ends them; it goes away with the parent.
"""

import signal

signal.signal(signal.SIGTERM, signal.SIG_IGN)

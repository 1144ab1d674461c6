"""``tenantune``, and ``python -m server``."""

import signal

# see server.shutdown.ctrl_c_at_once: the same for what has to be imported to get there
if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from server.cli import main

    signal.signal(signal.SIGINT, signal.default_int_handler)
else:
    from server.cli import main

if __name__ == "__main__":
    main()

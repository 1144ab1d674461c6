"""``python -m training.parent_watch MODULE [ARGUMENT ...]``: a module that ends with its parent.

As ``python -m MODULE``, but a signal or the end of standard input raises `Interrupted` in it, so
that it can clean up, and it ends soon. This holds from before the module is imported, which takes
ten seconds and more where it loads torch.
"""

import runpy
import sys

from training.events import EXIT_INTERRUPTED
from training.signals import GRACE_SECONDS, Stopper


def main() -> int:
    """Run the module; the exit status is its own, or `EXIT_INTERRUPTED`."""
    module = sys.argv.pop(1)
    stopper = Stopper(grace_seconds=GRACE_SECONDS, with_parent=True)
    try:
        with stopper:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
    except Exception:
        if not stopper.requested:  # a library may have turned it into another error
            raise
        return EXIT_INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""``python -m training.parent_watch MODULE [ARGUMENT ...]``: a module that ends with whoever started it.

As ``python -m MODULE``, but a signal raises `Interrupted` in it, so that it can tidy up, and it
ends soon, also when standard input closes. All that is in force before the module is imported,
which takes ten seconds and more where it loads torch.
"""

import runpy
import sys

from training.events import EXIT_INTERRUPTED
from training.signals import GRACE_SECONDS, Stopper


def main() -> int:
    """Run it; the exit status is the module's, or `EXIT_INTERRUPTED`."""
    module = sys.argv.pop(1)
    stopper = Stopper(grace_seconds=GRACE_SECONDS, with_parent=True)
    try:
        with stopper:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
    except Exception:
        if not stopper.requested:  # a library may have made another error of it
            raise
        return EXIT_INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())

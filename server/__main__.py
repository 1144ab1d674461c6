"""``python -m server`` is ``tenantune``."""

from server.cli import main

if __name__ == "__main__":
    main()

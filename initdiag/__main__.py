"""``python -m initdiag``."""

from initdiag.cli import main

if __name__ == "__main__":
    main()

"""`python -m ibfast`: the command line."""

from ibfast.commands.main import main

if __name__ == "__main__":
    raise SystemExit(main())

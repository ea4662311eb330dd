"""`python -m phyla`: the command line."""

from phyla.cli import main

if __name__ == "__main__":
    raise SystemExit(main())

"""Makes `python -m inlay_cli` the same as `inlay`; the supervisor starts its children this way."""

from inlay_cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())

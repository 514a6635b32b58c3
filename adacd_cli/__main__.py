"""`python -m adacd_cli` is `adacd`."""

from adacd_cli.cli.app import main

if __name__ == "__main__":
    main()

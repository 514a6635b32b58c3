"""`python -m adacd_cli` is `adacd`."""

from adacd_cli.cli.start import main

if __name__ == "__main__":
    main()

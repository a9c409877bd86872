"""``python -m kontrast`` is the command line."""

from kontrast.cli.main import main

main()

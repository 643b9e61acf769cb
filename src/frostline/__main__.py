"""``python -m frostline``."""

from frostline.cli.main import main

main()

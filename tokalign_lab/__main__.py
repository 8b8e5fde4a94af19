"""`python -m tokalign_lab`: the command line without its console script."""

from tokalign_lab.cli import main

if __name__ == "__main__":
    main()

"""`python -m dearlite`: the command line."""

from dearlite.cli.main import run

if __name__ == "__main__":
    run()

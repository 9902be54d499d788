"""`python -m hf_nlpnotes` is the command `hf-nlpnotes`."""

import sys

from hf_nlpnotes.cli import main

if __name__ == "__main__":
    sys.exit(main())

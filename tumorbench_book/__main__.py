"""The process of one chapter: ``python -m tumorbench_book PART/NAME ROOT``."""

import sys

from tumorbench_book.runner import main

main(*sys.argv[1:])

"""The process of one chapter: ``python -m tumorbench_book PART/NAME ROOT``."""

import json
import sys
from pathlib import Path

from tumorbench_book.runner import execute

print(json.dumps(execute(sys.argv[1], Path(sys.argv[2])).__dict__))

"""`python -m qna` is `qna`; torchrun needs the module form."""

import sys

from qna.cli import main

sys.exit(main())

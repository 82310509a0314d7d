"""Print one of the README's shell commands: `readme_commands.py train` or `test`.

A command is a block of shell behind the comment `<!-- command: NAME -->`.
"""

import re
import sys
from pathlib import Path

readme = (Path(__file__).parent.parent / "README.md").read_text()
blocks = dict(re.findall(r"<!-- command: (\w+) -->\n```sh\n(.*?)```", readme, re.S))
sys.stdout.write(blocks[sys.argv[1]])

"""Lets random networks live on both backends: `python tests/long_fuzz.py --networks 100000`.

Each is drawn from the seed and its number, so one that fails is lived again by
`--seed N --first NUMBER --networks 1`. What is compared, and how far rounding may carry, is said in
`lives.py` and `rounding.py`.
"""

from __future__ import annotations

import argparse
import sys
import time

import random_networks
from lives import Counts, compare


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first network")
    arguments = parser.parse_args()
    counts, failed, told = Counts(), 0, time.monotonic()
    for number in range(arguments.first, arguments.first + arguments.networks):
        plan, steps = random_networks.life([arguments.seed, number])
        try:
            compare(plan, steps, counts)
        except Exception as error:  # whatever it is, the next network is looked at as well
            failed += 1
            print(f"network {number}: {type(error).__name__}: {error}\n", flush=True)
        if time.monotonic() > told + 60:
            told = time.monotonic()
            print(f"{number}: {failed} failed; {counts}", file=sys.stderr, flush=True)
    print(f"seed {arguments.seed}: {failed} failed; {counts}")
    for reason, times in sorted(counts.refused.items()):
        print(f"refused {times} times: {reason}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

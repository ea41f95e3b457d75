"""``make fuzz``: the tests of random examples with fresh seeds, for as long as one likes. No tests are in this file.

It runs pytest in rounds, on every file that has such tests, each round with a seed of its own. What fails is printed with the shrunk
example, of networks as a test to paste, and with the seed that finds it again. Hypothesis keeps the example in ``.hypothesis/examples``
under the folder it was started in: ``make test`` there tries it first, until it passes. Rounds themselves try only new examples.

    python -m tests.fuzz --minutes 30 --processes 2 tests/convert
"""

from __future__ import annotations

import argparse
import os
import re
import secrets
import subprocess
import sys
import textwrap
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
RANDOM = re.compile(r"^@given\(|\(RuleBasedStateMachine\)", re.MULTILINE)
FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+)", re.MULTILINE)
# How pytest shows what `tests/pasting.py` writes: notes of the exception.
PASTED = re.compile(r"^E +# ---- as a test ----\n((?:E .*\n)+?)(?=E *\n|(?!E ))", re.MULTILINE)
NONE_COLLECTED = 5  # pytest's exit status


def files(folders: list[str]) -> list[str]:
    """The files with tests of random examples in some folders, or some of these files."""
    found = [p for folder in map(Path, folders) for p in (sorted(folder.rglob("test_*.py")) if folder.is_dir() else [folder])]
    return [str(p) for p in found if RANDOM.search(p.read_text())]


def pasted(output: str) -> list[str]:
    """The tests of counter-examples in what pytest has printed."""
    return ["# ---- to paste ----\n" + textwrap.dedent(re.sub("(?m)^E", " ", shown)) for shown in PASTED.findall(output)]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folders", nargs="*", default=[str(ROOT / "tests")], help="folders or files of tests")
    parser.add_argument("--minutes", type=float, default=10, help="the last round begins before")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--examples", type=int, default=150, help="in a round, of the most thorough tests")
    parser.add_argument("--seed", type=int, help="of the first round; the next ones count on")
    return parser.parse_args()


def main() -> int:
    """Run the rounds; the exit status says whether something failed."""
    args = arguments()
    given = files(args.folders)
    first = secrets.randbits(31) if args.seed is None else args.seed
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "--benchmark-disable",
        "-m",
        "hypothesis",
        "-n",
        str(args.processes),
        "--dist",
        "worksteal",
    ]
    environment = os.environ | {"CONTINUAL_EXAMPLES": str(args.examples), "CONTINUAL_FUZZ": "1"}
    end, found = time.monotonic() + 60 * args.minutes, dict[str, int]()
    seed = first
    try:
        while seed == first or time.monotonic() < end:
            began = time.monotonic()
            done = subprocess.run(
                [*command, *given], env=environment | {"CONTINUAL_SEED": str(seed)}, capture_output=True, text=True
            )
            closing = done.stdout.strip().splitlines()[-1:] or [done.stderr.strip()]
            if done.returncode == NONE_COLLECTED or done.returncode > 2:  # it did not come to run tests
                print(done.stdout, done.stderr, sep="\n")
                return done.returncode
            if done.returncode:
                print(done.stdout)
                print(*pasted(done.stdout), sep="\n")
            for test in FAILED.findall(done.stdout):
                found.setdefault(test, seed)
            print(f"seed {seed}: {time.monotonic() - began:.0f} s, {closing[0].strip('= ')}", flush=True)
            seed += 1
    except KeyboardInterrupt:
        print("stopped")
    print(f"{seed - first} rounds of seeds {first} … {seed - 1}; {len(found)} tests failed")
    for test, at in found.items():
        print(f'  {test}\n    again: make test SEED={at} PYTEST_ARGS="{test}" CONTINUAL_EXAMPLES={args.examples}')
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())

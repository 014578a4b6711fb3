"""Seconds from the command `mezzotint serve` to a first answer from it, with the bundled model: a new process every time.

python benchmarks/server_cold.py --json
"""

import argparse
import json
import signal
import statistics
import subprocess
import sys
import time

import httpx
from machine import stamp

QUESTION = [{"role": "user", "content": "Copy these words: amber coral lantern"}]


def start() -> tuple[float, float]:
    """Seconds until the server says where it is, and until it has answered."""
    begun = time.monotonic()
    server = subprocess.Popen([sys.executable, "-m", "mezzotint", "serve", "--port", "0", "--json"], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        url = json.loads(server.stdout.readline())["url"]
        listening = time.monotonic() - begun
        httpx.post(url + "/v1/chat/completions", json={"messages": QUESTION}, timeout=120).raise_for_status()
        return listening, time.monotonic() - begun
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(60)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one start")
    parser.add_argument("--json", action="store_true", help="print nothing but the JSON object")
    args = parser.parse_args()
    found = [start() for _ in range(1 if args.quick else args.starts)]
    answers = [answer for _, answer in found]
    print(
        json.dumps(
            {
                "seconds_to_listening": [listening for listening, _ in found],
                "seconds_to_first_answer": answers,
                "median": statistics.median(answers),
                "most": max(answers),
                **stamp(),
            }
        )
    )


if __name__ == "__main__":
    main()

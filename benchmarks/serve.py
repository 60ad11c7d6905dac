"""`dearlite serve` on loopback: its overhead over the library, eight clients at once, and a mixed load.

    python benchmarks/serve.py [--model minilm-l12] [--rounds 100] [--clients 8] [--minutes 0]
    python benchmarks/serve.py --sentences 1 --requests 0      # the overhead beside work that is short
    rivals/bin/python benchmarks/serve.py --rounds 0 --published-onnx FOLDER      # beside serve_peer.py, in turn
    ... --peer infinity=7997      # and beside a server that runs already, with the same weights

The mixed load has short, long and streamed requests, clients that leave, malformed requests and slow clients. It counts
statuses and the growth of the server's resident memory after the first minute. All traffic is to 127.0.0.1.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from measure import describe_machine

from dearlite import Reranker
from dearlite.errors import counted

QUERY = "who invented the light bulb, and in which year was it sold first?"
SENTENCES = (
    "Edison's company sold carbon filament lamps from 1880 on.",
    "Coffee is a drink made of roasted beans, and popular on all continents.",
    "Swan showed a lamp in Newcastle in 1879, a year in which others worked on the same thing.",
    "The bulb of a tulip is planted in autumn, before the first frost.",
    "A filament of tungsten lasts longer than one of carbon.",
)


def documents(count: int, seed: int, sentences: int = 3) -> list[str]:
    """`count` documents of some sentences each, all different."""
    draw = random.Random(seed)
    return [f"{n}. " + " ".join(draw.choices(SENTENCES, k=sentences)) for n in range(count)]


@contextmanager
def running_server(*options: str) -> Iterator[tuple[int, int]]:
    """Starts `dearlite serve`; gives its port and process id, and ends it with SIGTERM."""
    command = [sys.executable, "-m", "dearlite", "serve", "--port", "0", "--quiet", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())["port"], process.pid
        finally:
            process.send_signal(signal.SIGTERM)
            print(f"exit code after SIGTERM: {process.wait(60)}")


def post(connection: http.client.HTTPConnection, body: bytes, path: str = "/v2/rerank") -> int:
    """The status of a request, whose answer is read."""
    connection.request("POST", path, body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    response.read()
    return response.status


def body_of(texts: list[str], **fields: Any) -> bytes:
    """A request with these documents."""
    return json.dumps({"query": QUERY, "documents": texts, **fields}).encode()


@contextmanager
def running_peer(published: Path) -> Iterator[int]:
    """Starts serve_peer.py with the published model; gives its port."""
    from published import make_folders

    with tempfile.TemporaryDirectory() as folder:
        setting = make_folders(published, Path(folder), threads=0)
        port_file = Path(folder) / "port"
        command = [sys.executable, str(Path(__file__).with_name("serve_peer.py"))]
        with subprocess.Popen([*command, str(setting.sentence_transformers), str(port_file)]) as process:
            try:
                while not (port_file.exists() and port_file.read_text()):
                    if process.poll() is not None:
                        raise SystemExit("the peer did not start: its message is above")
                    time.sleep(0.1)
                yield int(port_file.read_text())
            finally:
                process.kill()


def measure_peers(ports: dict[str, int], clients: int, requests: int, rounds: int = 5) -> None:
    """Prints requests per second and latencies of servers, by name, at the same concurrency, measured in turn."""
    rates: dict[str, list[float]] = {name: [] for name in ports}
    latencies: dict[str, list[float]] = {name: [] for name in ports}
    for _ in range(rounds):
        for name, number in ports.items():
            result = run_clients(number, clients, requests // rounds, "/rerank")
            rates[name].append(result["rate"])
            latencies[name] += result["latencies"]
    for name in ports:
        times = f"median {statistics.median(latencies[name]):.2f} s, p99 {percentile(latencies[name], 0.99):.2f} s"
        print(f"{clients} clients, {name}: {statistics.median(rates[name]):.2f} requests/s, {times}")


def measure_overhead(port: int, reranker: Reranker, rounds: int, sentences: int) -> None:
    """Prints the times of requests of 20 documents and of the library's calls, and quartiles of their difference."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    library, server, differences = [], [], []
    for number in range(rounds + 2):
        texts = documents(20, number, sentences)
        body = body_of(texts)
        times = {}
        for name in ("library", "server") if number % 2 else ("server", "library"):
            start = time.perf_counter()
            if name == "library":
                reranker.rerank(QUERY, texts)
            else:
                post(connection, body)
            times[name] = (time.perf_counter() - start) * 1000
        if number >= 2:
            library.append(times["library"])
            server.append(times["server"])
            differences.append(times["server"] - times["library"])
    low, median, high = statistics.quantiles(differences, method="inclusive")
    print(
        f"20 documents of {counted(sentences, 'sentence')}: library {statistics.median(library):.2f} ms, server "
        f"{statistics.median(server):.2f} ms, difference {median:+.2f} ms, quartiles {low:+.2f} and {high:+.2f} "
        f"({rounds} pairs)"
    )


def measure_clients(port: int, clients: int, requests: int, rounds: int = 5) -> None:
    """Prints requests per second and latencies of one client and of several at once.

    They are measured in turn, and ratios are within a round: a machine drifts by more than they differ.
    """
    single, several = list[dict[str, Any]](), list[dict[str, Any]]()
    for number in range(rounds):
        pair = [(1, single), (clients, several)]
        for count, results in pair if number % 2 else reversed(pair):
            results.append(run_clients(port, count, max(clients, requests // rounds)))
    rates = [many["rate"] / one["rate"] for one, many in zip(single, several, strict=True)]
    works = [
        percentile(many["latencies"], 0.99) / (clients * statistics.median(one["latencies"]))
        for one, many in zip(single, several, strict=True)
    ]
    for count, results in ((1, single), (clients, several)):
        latencies = [1000 * seconds for result in results for seconds in result["latencies"]]
        statuses = sum((result["statuses"] for result in results), Counter[int]())
        print(
            f"{counted(count, 'client')}: {statistics.median(result['rate'] for result in results):.2f} requests/s, "
            f"median {statistics.median(latencies):.0f} ms, p99 {percentile(latencies, 0.99):.0f} ms, "
            f"statuses {dict(statuses)}"
        )
    print(
        f"{clients} clients beside one, medians of {rounds} rounds: {statistics.median(rates):.3f} of its requests/s "
        f"({min(rates):.3f} to {max(rates):.3f}), p99 {statistics.median(works):.2f} times the work of {clients} "
        f"requests ({min(works):.2f} to {max(works):.2f})"
    )


def run_clients(port: int, clients: int, requests: int, path: str = "/v2/rerank") -> dict[str, Any]:
    """Latencies, statuses and rate of `clients` that send `requests` in all, one after another each."""
    latencies, statuses = list[float](), Counter[int]()

    def client(number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        for turn in range(requests // clients):
            body = body_of(documents(20, number * 1000 + turn))
            start = time.perf_counter()
            statuses[post(connection, body, path)] += 1
            latencies.append(time.perf_counter() - start)

    start = time.perf_counter()
    run_threads([lambda number=number: client(number) for number in range(clients)])
    return {"latencies": latencies, "statuses": statuses, "rate": len(latencies) / (time.perf_counter() - start)}


def run_threads(jobs: list[Callable[[], None]]) -> None:
    """Runs the jobs at once and returns when all have ended."""
    threads = [threading.Thread(target=job) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def percentile(values: list[float], share: float) -> float:
    """The value below which `share` of the sorted values lie."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


# --- mixed load


def short(port: int) -> int:
    """Some documents."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=300)) as connection:
        return post(connection, body_of(documents(random.randint(1, 20), random.randrange(10**6))), "/v1/rerank")


def long(port: int) -> int:
    """Many documents, long ones, with a budget."""
    texts = documents(200, random.randrange(10**6), sentences=20)
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=300)) as connection:
        return post(connection, body_of(texts, budget_ms=2000, long="chunk"), "/rerank")


def streamed(port: int) -> int:
    """Events."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=300)) as connection:
        connection.request("POST", "/rerank", body_of(documents(30, 1)), {"Accept": "text/event-stream"})
        response = connection.getresponse()
        return response.status if b"event: result" in response.read() else -1


def leaving(port: int) -> int:
    """A client that closes its connection while the work runs."""
    body = body_of(documents(500, 2))
    with closing(socket.create_connection(("127.0.0.1", port))) as client:
        client.sendall(b"POST /rerank HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        time.sleep(random.random() / 5)
    return 499


def malformed(port: int) -> int:
    """Bodies that cannot be read."""
    bodies = (b"", b"{", b"[" * 10000, b'{"query": "\xff"}', b'{"query": "a", "documents": [1]}', body_of([], top_n=-1))
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=300)) as connection:
        return post(connection, random.choice(bodies))


def slow(port: int) -> int:
    """A client that sends its body byte by byte, and leaves before its end."""
    with closing(socket.create_connection(("127.0.0.1", port))) as client:
        client.sendall(b"POST /rerank HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n")
        for _ in range(10):
            client.sendall(b" ")
            time.sleep(0.1)
    return 499


# load -> statuses that are right: a budget may end while the request waits
LOADS = {short: {200}, long: {200, 503, 504}, streamed: {200}, leaving: {499}, malformed: {400}, slow: {499}}


def any_load() -> Callable[[int], int]:
    """A load of the mix, most often a short request."""
    (load,) = random.choices(list(LOADS), (10, 1, 3, 2, 5, 1))
    return load


def measure_mixed(port: int, pid: int, minutes: float, workers: int = 6) -> None:
    """Prints the growth of resident memory after a minute, and the statuses, expected or not."""
    end, statuses = time.monotonic() + minutes * 60, Counter[str]()

    def worker() -> None:
        while time.monotonic() < end:
            load = any_load()
            try:
                status = load(port)
            except OSError as err:
                status = -2
                statuses[f"{load.__name__}: {err}"] += 1
            expected = "expected" if status in LOADS[load] | {429} else "UNEXPECTED"
            statuses[f"{load.__name__} {status} {expected}"] += 1

    def watch() -> None:
        memory = []
        while time.monotonic() < end:
            time.sleep(min(10.0, max(0.0, end - time.monotonic())))
            memory.append(resident_mb(pid))
        warm = memory[min(5, len(memory) - 1)]
        print(
            f"resident memory: {warm:.0f} MB after a minute, {memory[-1]:.0f} MB at the end, most {max(memory):.0f} MB"
        )

    run_threads([watch, *[worker] * workers])
    for name, count in sorted(statuses.items()):
        print(f"  {name}: {count}")


def resident_mb(pid: int) -> float:
    """Resident memory of a process (Linux)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:"))


def main() -> None:
    """Runs the measurements that the options name."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="minilm-l12")
    parser.add_argument("--rounds", type=int, default=100, help="pairs of calls for the overhead, 0 or from 2 on")
    parser.add_argument("--sentences", type=int, default=3, help="of each document, for the overhead")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--requests", type=int, default=160, help="for one client, and for all clients together")
    parser.add_argument("--minutes", type=float, default=0.0, help="time of the mixed load, at most 60")
    parser.add_argument(
        "--published-onnx", type=Path, metavar="FOLDER", help="model.onnx and tokenizer.json, for the peer"
    )
    parser.add_argument(
        "--peer", action="append", default=[], metavar="NAME=PORT", help="a server with POST /rerank that runs already"
    )
    options = parser.parse_args()
    peers = {name: int(number) for name, _, number in (peer.partition("=") for peer in options.peer)}
    print(json.dumps(describe_machine()))
    with running_server("-m", options.model) as (port, pid):
        if options.rounds:
            measure_overhead(port, Reranker.load(options.model), options.rounds, options.sentences)
        if options.published_onnx is not None:
            with running_peer(options.published_onnx) as peer:
                ports = {"dearlite": port, "sentence-transformers behind FastAPI": peer, **peers}
                measure_peers(ports, options.clients, options.requests)
        elif options.requests:
            measure_clients(port, options.clients, options.requests)
        if options.minutes:
            measure_mixed(port, pid, min(options.minutes, 60.0))


if __name__ == "__main__":
    main()

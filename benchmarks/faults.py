"""Disturbs dearlite's commands at random moments, and checks what is left; one row per command.

    python benchmarks/faults.py [--command NAME ...] [--kills 100] [--how kill] [--seed 1]

A command runs on small inputs (tests/support/commands_at_work.py). It is ended (`kill`: SIGKILL, `term`: SIGTERM) or
halted and resumed (`stop`: SIGSTOP), after a random share of its time or just after it has made or removed a file; or
it runs within a random limit of its memory (`memory`), the size of a file (`size`) or its open files (`files`). After
each the outputs are whole or as before, and nothing that was promised is gone: a line of a journal, a checkpoint, a
fetched file. After one to four of them the same command, undisturbed, ends with the bytes and the files of an
undisturbed run. The commands are forks of a process that has imported their modules: nothing is written while they are
imported. Needs the extra dev.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from measure import describe_machine

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
from commands_at_work import WORKS, Fault, Work, names_in, work
from started import Started

_STOPPED_S = 0.2
_SIGNALS = {"kill": signal.SIGKILL, "term": signal.SIGTERM, "stop": signal.SIGSTOP}
# Limit, its least and its greatest value: from "Python does not start" to "the command ends".
_LIMITS = {
    "memory": (resource.RLIMIT_AS, 30 * 2**20, 2**30),
    "size": (resource.RLIMIT_FSIZE, 0, 2**20),
    "files": (resource.RLIMIT_NOFILE, 4, 24),
}
_PHASES = ("no file yet", "files in progress", "written", "finished")


def disturb(command: Work, how: str, count: int, chance: random.Random, root: Path) -> dict[str, Any]:
    """The figures of one command that is disturbed `count` times. A fault is printed, and its folder kept."""
    phases, faults, resumed, number, done = Counter[str](), Counter[str](), 0, 0, 0
    while done < count:
        number += 1
        episode = root / f"{command.name}-{how}-{number}"
        command.open(episode)
        try:
            promised: set[Any] = set()
            for _ in range(min(chance.randint(1, 4), count - done)):
                phase = _disturb_once(command, how, chance, episode)
                phases[phase] += 1
                done += phase != "finished"
                promised = command.check(episode, promised)
                if phase == "finished":
                    break
            command.finish(episode)
            resumed += 1
        except Fault as err:
            faults[str(err).partition(":")[0]] += 1
            print(f"{command.name}: {err} ({episode})", file=sys.stderr, flush=True)
            continue
        subprocess.run(["rm", "-r", str(episode)], check=True)
    return {"command": command.name, "how": how, "seconds": command.seconds, "disturbed": done, "resumed": resumed,
            "episodes": number, "phases": dict(phases), "faults": dict(faults)}  # fmt: skip


def _disturb_once(command: Work, how: str, chance: random.Random, episode: Path) -> str:
    """The phase in which the command was disturbed."""
    if how in _LIMITS:
        return _limited(command, how, chance, episode)
    process = command.start(episode)
    _await_moment(process, command, chance, episode)
    if process.wait(0) is not None:
        _check_message(process, 0)
        return "finished"
    phase = command.phase(episode)
    process.send_signal(_SIGNALS[how])
    if how == "stop":
        time.sleep(_STOPPED_S)
        process.send_signal(signal.SIGCONT)
    process.wait()
    if how == "stop":
        _check_message(process, 0)
    if how == "term" and (left := [name for name in names_in(episode) if name.endswith(".draft")]):
        raise Fault(f"left after SIGTERM: {left}")
    return phase


def _await_moment(process: Started, command: Work, chance: random.Random, episode: Path) -> None:
    """Returns after a random share of the command's time or, every other time, just after it made or removed a file."""
    if chance.random() < 0.5:
        process.wait(chance.uniform(0, 0.9 * command.seconds))
        return
    changes, names = chance.randint(1, 4), names_in(episode)
    while changes and process.wait(0.001) is None:
        if (now := names_in(episode)) != names:
            changes, names = changes - 1, now
    time.sleep(chance.choice([0, 0.001, 0.01]))


def _limited(command: Work, how: str, chance: random.Random, episode: Path) -> str:
    limit, least, most = _LIMITS[how]
    value = chance.randint(least, most)
    process = command.start(episode, [(limit, value)])
    code = process.wait()
    assert code is not None
    _check_message(process, code, f"{how} {value}")
    return "finished" if code == 0 else command.phase(episode)


def _check_message(process: Started, code: int, limit: str = "") -> None:
    """Raises Fault for another exit code than `code`, and for a failure within a limit that has no line of its own."""
    err = process.err()
    lines = err.strip().splitlines()
    if process.returncode != code:
        raise Fault(f"exit {process.returncode}: {lines[-1:]}")
    if limit and code and (code < 0 or not lines or "Traceback" in err):
        raise Fault(f"no message: {limit}, exit {code}, {lines[-1:]}")


def rows_of(reports: Iterable[dict[str, Any]]) -> Iterable[str]:
    """A Markdown table."""
    names = ("command", "how", "seconds", "disturbed", *_PHASES[:3], "ended before", "faults", "resumed")
    yield f"| {' | '.join(names)} |"
    yield "|---|---|--:|--:|--:|--:|--:|--:|---|--:|"
    for report in reports:
        phases = " | ".join(str(report["phases"].get(phase, 0)) for phase in _PHASES)
        faults = ", ".join(f"{name} {count}" for name, count in report["faults"].items()) or "none"
        yield (
            f"| `{report['command']}` | {report['how']} | {report['seconds']:.1f} | {report['disturbed']} | {phases} | "
            f"{faults} | {report['resumed']} of {report['episodes']} |"
        )


def main() -> None:
    """Prints the table; exits with 1 after a fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--command", action="append", choices=list(WORKS), help="default: all")
    parser.add_argument("--how", action="append", choices=[*_SIGNALS, *_LIMITS], help="default: kill")
    parser.add_argument("--kills", type=int, default=100, metavar="N", help="disturbances per command (default: 100)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="of the episodes; those of faults are kept (default: temporary)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to this file")
    options = parser.parse_args()
    root = options.folder or Path(tempfile.mkdtemp(prefix="faults-"))
    reports = []
    for name in options.command or WORKS:
        for how in options.how or ["kill"]:
            with work(name, root / how) as command:
                chance = random.Random(f"{options.seed} {name} {how}")
                reports.append(disturb(command, how, options.kills, chance, root / how))
            print(list(rows_of(reports[-1:]))[-1], file=sys.stderr, flush=True)
    print("\n".join(rows_of(reports)))
    if options.json is not None:
        options.json.write_text(json.dumps({"machine": describe_machine(), "commands": reports}, indent=1) + "\n")
    sys.exit(any(report["faults"] for report in reports))


if __name__ == "__main__":
    main()

"""Commands that are ended, halted or limited at work: nothing is half-written or lost, and the same command goes on.

benchmarks/faults.py does this at a hundred random moments a command. Here a file of the command marks each moment.
"""

import re
import signal

import pytest
from commands_at_work import OLD, names_in, work
from posix_only import need_posix
from waiting import eventually

NOTES = re.compile(
    r"dearlite: (tiny: licence|resuming|\d+ of \d+ pairs are kept)|Ignored error while writing commit hash"
)


@pytest.fixture(scope="module", params=["rerank", "batch", "models get"])
def command(request, tmp_path_factory):
    need_posix()
    pytest.importorskip("onnx", reason="onnx is not installed (extra export)")
    pytest.importorskip("gguf", reason="gguf is not installed (extra export)")
    with work(request.param, tmp_path_factory.mktemp("work")) as command:
        yield command


@pytest.fixture
def episode(command, tmp_path):
    folder = tmp_path / "episode"
    command.open(folder)
    return folder


def started(command, episode, changes):
    """The command after so many changes of its files, or at its end."""
    process, seen = command.start(episode), [names_in(episode)]

    def has_come():
        if (names := names_in(episode)) != seen[-1]:
            seen.append(names)
        return len(seen) > changes or process.wait(0) is not None

    eventually(has_come, every_s=0.001)
    return process


def test_kills_end_in_the_files_of_an_undisturbed_run(command, episode):
    need_posix()
    promised = set()
    for changes in (1, 2, 4):
        process = started(command, episode, changes)
        process.send_signal(signal.SIGKILL)
        assert process.wait() in (-signal.SIGKILL, 0)
        promised = command.check(episode, promised)
    command.finish(episode)
    assert [name for name in names_in(episode) if name.startswith("tmp/")] == []


def test_a_terminated_command_cleans_up_and_ends_by_its_signal(command, episode):
    process = started(command, episode, 1)
    process.send_signal(signal.SIGTERM)
    assert process.wait() in (-signal.SIGTERM, 0)
    assert "Traceback" not in process.err()
    assert [name for name in names_in(episode) if name.endswith(".draft")] == []
    command.check(episode, set())
    command.finish(episode)


def test_a_halted_command_goes_on(command, episode):
    need_posix()
    process = started(command, episode, 1)
    process.send_signal(signal.SIGSTOP)
    command.check(episode, set())
    process.send_signal(signal.SIGCONT)
    assert process.wait() == 0, process.err()
    command.finish(episode)


@pytest.mark.parametrize("size_bytes", [0, 2000])
def test_a_full_disk_is_one_line_and_the_command_goes_on(command, episode, size_bytes):
    """A limit of the size of files is as a full disk: a write is refused, or cut short."""
    resource = pytest.importorskip("resource")
    process = command.start(episode, [(resource.RLIMIT_FSIZE, size_bytes)])
    assert process.wait() in (1, 2)
    lines = [line for line in process.err().splitlines() if not NOTES.match(line)]
    assert len(lines) == 1 and lines[0].startswith("dearlite: "), lines
    command.check(episode, set())
    command.finish(episode)


def test_too_little_memory_for_the_work_is_no_traceback(command, episode):
    """A fork has the memory of its parent: these limits allow it no more, or some megabytes."""
    resource = pytest.importorskip("resource")
    for limit_mb in (1, 200):
        process = command.start(episode, [(resource.RLIMIT_AS, limit_mb * 2**20)])
        if process.wait() == 1:
            lines = [line for line in process.err().splitlines() if not NOTES.match(line)]
            assert len(lines) == 1 and lines[0].startswith("dearlite: "), lines
    command.check(episode, set())
    command.finish(episode)


def test_the_checks_can_fail(command, episode):
    path = command.outputs(episode)[0]
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(command.expected[0][:-1])
    with pytest.raises(AssertionError, match="half-written"):
        command.check(episode, set())
    path.write_bytes(OLD)
    with pytest.raises(AssertionError, match="lost"):
        command.check(episode, {"a line"})
    path.unlink()
    if command.name == "models get":  # the other files are there: it is not fetched again
        return
    (episode / "tmp" / "leftover").touch()
    with pytest.raises(AssertionError, match=r"left: \['tmp/leftover'\]"):
        command.finish(episode)

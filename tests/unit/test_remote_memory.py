"""How a container sees that it had too little memory."""

from pathlib import Path

import pytest

from evflow_executors.remote.memory import killed_for_memory


@pytest.mark.parametrize(
    ("name", "text", "killed"),
    [
        ("memory.events", "low 0\noom 3\noom_kill 2\noom_group_kill 0\n", 2),
        ("memory/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n", 1),
        ("memory/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\n", 0),
        ("else", "", 0),
    ],
)
def test_the_kernels_counter_is_read_in_both_versions_of_cgroups(tmp_path: Path, name: str, text: str, killed: int) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(text)
    assert killed_for_memory(tmp_path) == killed

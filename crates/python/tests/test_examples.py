"""The examples and the README's programs run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import librpc
import pytest
from conftest import LIMIT

ROOT = Path(__file__).parents[1]


def run(domain: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "LIBRPC_DOMAIN": domain}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=6 * LIMIT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return done


def test_hello(domain: str) -> None:
    environment = {**os.environ, "LIBRPC_DOMAIN": domain}
    script = str(ROOT / "examples/hello.py")
    display = subprocess.Popen([sys.executable, script, "display"], stdout=subprocess.PIPE, text=True, env=environment)
    run(domain, script, "camera")
    assert display.communicate(timeout=LIMIT)[0] == "camera: b'hello'\n"


def test_camera(domain: str) -> None:
    assert run(domain, str(ROOT / "examples/camera.py")).stdout == "30 frames of 6.2 MB, the last one of shade 29\n"


def test_tasks(domain: str) -> None:
    lines = run(domain, str(ROOT / "examples/tasks.py")).stdout.splitlines()
    assert lines[0] == "sensor/kitchen/temperature 20.0" and lines[-1] == "['00', '11', '22', '33', '44']" and len(lines) == 6


def test_service(domain: str) -> None:
    *answers, gone = run(domain, str(ROOT / "examples/service.py")).stdout.splitlines()
    assert answers == ["0.25", "code 7: division by zero"]
    assert gone.startswith(('NoServer: nobody serves "divide"', 'ServerDied: the server of "divide"')) and "had taken" not in gone


def test_latencies(domain: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    picture = tmp_path / "latencies.png"
    assert "half within" in run(domain, str(ROOT / "examples/latencies.py"), str(picture)).stdout
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_the_demo(domain: str) -> None:
    output = run(domain, "-m", "librpc.demo").stdout
    assert "got 'hello' from camera" in output and "it was processed" in output


PROGRAMS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
GUIDE = ROOT.parents[1] / "docs/guide/python.md"
PROGRAMS += re.findall(r"```python\n(.*?)```", GUIDE.read_text() if GUIDE.exists() else "", re.DOTALL)


@pytest.mark.parametrize("program", PROGRAMS, ids=range(len(PROGRAMS)))
def test_programs_of_the_documents(domain: str, program: str) -> None:
    """Each is a whole program, and what it asserts holds."""
    run(domain, "-c", program)


def test_the_documents_of_the_module() -> None:
    assert librpc.__doc__ and "import librpc" in librpc.__doc__
    for name in ("Node", "Inbox", "Sender", "Publisher", "Client", "Server", "Loan", "Sample"):
        kind = getattr(librpc, name)
        assert kind.__doc__, name
        for method in vars(kind):
            if not method.startswith("_") and callable(getattr(kind, method)):
                assert getattr(kind, method).__doc__, f"{name}.{method}"

"""openrbu in Ansible's own process: what is loaded before the workers are forked."""

from __future__ import annotations

import json
import subprocess

from rigs.playbooks import ANSIBLE, COLLECTIONS, PLUGIN_UTILS, Fleet

WORKER = f"""
import importlib, json, sys
sys.path.insert(0, {str(COLLECTIONS)!r})
in_process = importlib.import_module({f"{PLUGIN_UTILS}.in_process"!r})
assert in_process.preload()
before, late = set(sys.modules), []
for words in json.loads(sys.argv[1]):
    code, out, _ = in_process.call(words, sys.argv[2])
    assert code == 0, out
    late += [f"{{words[0]}}: {{name}}" for name in sys.modules if name not in before]
    before |= set(sys.modules)
print(json.dumps(late))
"""


def test_a_worker_loads_nothing_of_openrbu_and_nothing_large(fleet: Fleet) -> None:
    fleet.machine("a")
    image = str(fleet.image("A06"))
    commands = [
        ["plan", "--machine", "a", "--json", image],
        ["status", "--machine", "a", "--json"],
        ["update", "--machine", "a", "--json", image, "--no-arm"],
        ["arm", "--machine", "a", "--json"],
        ["machine", "reboot", "a", "--json"],
        ["status", "--machine", "a", "--json"],
    ]
    done = subprocess.run(
        [ANSIBLE / "python", "-c", WORKER, json.dumps(commands), fleet.home],
        check=True,
        stdout=subprocess.PIPE,
        env=fleet.environment,
    )
    late = json.loads(done.stdout)
    large = [each for each in late if " openrbu." in each or " numpy" in each]
    assert [each for each in large if "._vendor." not in each] == []

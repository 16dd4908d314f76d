"""Unmodified Ansible works on a virtual Dell as on a real one."""

from __future__ import annotations

import json
import subprocess

from rigs.playbooks import ANSIBLE, INVENTORY, Fleet

FILES = """
- hosts: all
  gather_facts: true
  gather_subset: ["!all", hardware]
  tasks:
    - name: dmi
      ansible.builtin.debug:
        msg: "{{ ansible_facts.product_name }} {{ ansible_facts.bios_version }}"
    - name: send
      ansible.builtin.copy:
        src: sent.bin
        dest: "{{ playbook_dir }}/put-{{ inventory_hostname }}"
    - name: fetch
      ansible.builtin.fetch:
        src: /sys/class/dmi/id/bios_version
        dest: "{{ playbook_dir }}/fetched-{{ inventory_hostname }}"
        flat: true
    - name: command
      ansible.builtin.shell: modprobe dell_rbu && cat /sys/devices/platform/dell_rbu/image_type
"""


def test_facts_modules_and_files_are_the_machines(fleet: Fleet) -> None:
    fleet.machine("one")
    fleet.machine("two", "precision-390")
    (fleet.directory / "sent.bin").write_bytes(bytes(range(256)))
    played = fleet.play(FILES)
    assert played.of("one", "dmi")["msg"] == "PowerEdge 2650 A05"
    assert played.of("two", "dmi")["msg"] == "Precision WorkStation 390 2.1.2"
    for name, version in (("one", "A05\n"), ("two", "2.1.2\n")):
        assert (fleet.directory / f"put-{name}").read_bytes() == bytes(range(256))
        assert (fleet.directory / f"fetched-{name}").read_text() == version
        assert played.of(name, "command")["stdout"] == "mono"
        assert fleet.rbu("machine", "show", name)["modules"] == ["dell_rbu"]


def test_the_reboot_module_restarts_the_machine_and_the_bios_updates(fleet: Fleet) -> None:
    fleet.machine("one")
    image = fleet.image("A06")
    before = fleet.rbu("status", "--machine", "one")["boot"]["id"]
    played = fleet.tasks(
        f"openrbu.firmware.bios_update:\n  image: {image}",
        "ansible.builtin.reboot:\n  reboot_timeout: 60",
        "openrbu.firmware.bios_info:",
    )
    assert played.of("one", "reboot")["rebooted"] is True
    found = played.of("one", "bios_info")["bios"]
    assert (found["version"], found["completion_code"]) == ("A06", "0x0000")
    assert found["boot_id"] != before


def test_the_exit_code_is_the_programs_and_a_machine_that_is_off_is_unreachable(
    fleet: Fleet,
) -> None:
    fleet.machine("off")
    fleet.machine("on")
    fleet.rbu("machine", "off", "off")
    played = fleet.tasks("ansible.builtin.raw: exit 4", code=4)
    assert (played.of("on")["outcome"], played.of("on")["rc"]) == ("failed", 4)
    assert played.of("off")["outcome"] == "unreachable"
    assert "is off" in played.of("off")["msg"]


def listed(fleet: Fleet, *, is_right: bool = True) -> subprocess.CompletedProcess[str]:
    """What ansible-inventory says of the machines, in lines that are not broken."""
    return subprocess.run(
        [str(ANSIBLE / "ansible-inventory"), "-i", INVENTORY, "--list"],
        capture_output=True,
        text=True,
        check=is_right,
        cwd=fleet.directory,
        env=fleet.environment | {"COLUMNS": "1000"},
    )


def test_a_machine_with_the_name_of_a_group_is_named(fleet: Fleet) -> None:
    fleet.machine("all")
    why = "a machine can't be a host with the name 'all', which is a group's here"
    assert why in " ".join(listed(fleet, is_right=False).stderr.split())


def test_an_inventory_of_no_machine_says_where_it_has_looked(fleet: Fleet) -> None:
    assert f"there is no machine in {fleet.home}" in " ".join(listed(fleet).stderr.split())


def test_the_inventory_groups_machines_by_model_and_system(fleet: Fleet) -> None:
    fleet.machine("one")
    fleet.machine("two", "precision-390")
    groups = json.loads(listed(fleet).stdout)
    assert groups["model_poweredge_2650"]["hosts"] == groups["system_0x0121"]["hosts"] == ["one"]
    assert groups["model_precision_390"]["hosts"] == groups["system_0x01de"]["hosts"] == ["two"]

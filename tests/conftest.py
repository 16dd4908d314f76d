"""What all tests have."""

pytest_plugins = ["lab_rig", "xen_rig"]

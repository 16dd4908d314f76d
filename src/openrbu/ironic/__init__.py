"""Updates as steps of OpenStack Ironic: a hardware manager for its agent (the extra `ironic`)."""

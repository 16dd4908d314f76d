"""What tests are made with: machines, hosts, drivers and programs to try."""

"""Reports: what many answers of rbu say of many machines, as one table."""

"""A Xen host: machine memory, and the guests that it is handed out to."""

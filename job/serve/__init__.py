"""A voice that whoever has a browser may listen to: the page, its server, and a Ray Serve one."""

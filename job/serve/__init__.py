"""A voice in the browser: the page, its server, and the same as a Ray Serve application."""

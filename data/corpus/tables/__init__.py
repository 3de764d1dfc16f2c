"""Tables of a preparation that grow with its transcript, of which memory holds few bytes per line.

They lie in files of the system's temporary folder (`TMPDIR`), which are mapped: the system keeps of
them in memory what it has room for.
"""

"""The prepared corpus as files: shards, and the manifest that lists their rows."""

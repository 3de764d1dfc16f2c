"""Ray as this project uses it: clusters, scaling, process groups, storage."""

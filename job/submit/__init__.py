"""Run a command on a cluster: `python -m job.submit -- job.train --config C ...`.

It uploads the code, the presets and the files of settings that the command names, shows the job's
output, and ends as the job does. The job outlives this terminal.

With --retry N it outlives the cluster's head: where the head was lost and is back, the same command
is submitted again, under a new id, and a run resumes from its newest checkpoint.

Exit status: 0 if the job succeeded (with --no-wait, if the cluster has taken it), 1 if it failed or
was stopped, 2 if it could not be submitted, 130 if this terminal has left the job (Ctrl-C, or a
broken connection) and it continues.
"""

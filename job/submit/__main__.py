"""`python -m job.submit`."""

if __name__ == "__main__":
    from job.options import begin

    begin("job.submit")  # the imports below take seconds

    from job.settings.cli import run
    from job.submit.command import main

    run(main)

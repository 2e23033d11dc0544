"""Where a job runs and where its runs are kept."""

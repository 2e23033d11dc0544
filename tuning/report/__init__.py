"""The report of a sweep, of a run, or of several of them side by side: one HTML file that needs
nothing else, and its tables as CSV and Parquet."""

"""The report of a sweep, of a run, or of several of them side by side.

One HTML file that needs nothing else, and its tables as CSV and Parquet.
"""

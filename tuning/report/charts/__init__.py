"""The pictures of a report, as Vega-Lite specs made with Altair."""

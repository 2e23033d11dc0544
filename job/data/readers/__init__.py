"""How data sets are read, a module a form: published in `idx` and `cifar`, users' in `parquet`."""

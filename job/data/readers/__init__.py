"""The forms in which data sets are read, one module for each: those that sets are published in
(`idx`, `cifar`), and those of users' own sets (`parquet`)."""

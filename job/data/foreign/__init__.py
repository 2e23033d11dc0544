"""What people have: pictures in folders, `.npz`, CSV of pixels, Parquet of Hugging Face, IDX.

A module for each says which files are of its kind (`takes`) and reads them (`read`);
`job.data.convert` makes a data set of ours of them, once.
"""

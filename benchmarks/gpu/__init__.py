"""What is measured on one GPU, in parts that can be lost one by one."""

"""Commands of `lenet` that need one run or several, and no Ray."""

"""`lenet doctor`: looks at machines and storage before money is spent on them."""

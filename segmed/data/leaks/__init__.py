"""What makes a figure of a classifier wrong: twins, subjects on two sides of a split, shortcuts."""

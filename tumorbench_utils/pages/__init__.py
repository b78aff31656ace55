"""What pages show that is no figure and no plain table."""

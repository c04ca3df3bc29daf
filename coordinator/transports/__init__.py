"""What carries commands to lanes and outcomes back."""

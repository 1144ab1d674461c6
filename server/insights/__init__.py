"""What customers' messages are about and how they sound: the live heads, applied in the background."""

"""What makes a portrait speak."""

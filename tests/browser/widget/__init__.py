"""The widget in browsers."""

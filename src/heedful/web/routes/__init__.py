"""The app's addresses, a module for each part of it."""

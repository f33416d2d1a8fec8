"""The book's measured figures: `make bench` runs every module here that defines `figures()`."""

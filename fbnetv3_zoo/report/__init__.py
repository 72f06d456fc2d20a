"""What the pages of all reports share: HTML, SVG, and the environment they were made in."""
